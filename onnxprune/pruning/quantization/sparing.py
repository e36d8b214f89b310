"""Which layers stay float so that the outputs lose no more than is allowed."""

from __future__ import annotations

from collections.abc import Iterable

from onnxprune.ir.model import Model
from onnxprune.pruning.quantization.measuring import Judge
from onnxprune.pruning.quantization.selecting import Choice, Workshop, layer_seconds
from onnxprune.pruning.quantization.writing import rounded_anyway

#: Of a float layer's time, what every layer is taken to save at least: a trace does not tell all of them apart.
_LEAST_SAVED = 0.02


def spare(shop: Workshop, choice: Choice, judge: Judge, most: float) -> Choice | None:
    """The choice with as few layers in floats as it takes to lose no more than ``most``; None where no file does.

    What a layer costs is the error at the outputs when it alone becomes integers; what it saves is its time. Those that
    cost most for what they save go first, and how many have to is found by trying: errors add up only roughly.

    Args:
        shop: what all versions have in common.
        choice: what is fastest.
        judge: what compares outputs.
        most: of their variance, the largest share that may be lost.
    """
    if judge.loss(choice.model).worst <= most:
        return choice
    order, costs = _order(shop, choice, judge)
    found, low, high = None, 0, 1
    while found is None:
        found = _within(shop, choice, judge, most, order[:high])
        if found is None:
            if high >= len(order):
                return None
            low, high = high, min(2 * high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        fewer = _within(shop, choice, judge, most, order[:middle])
        found, low, high = (found, middle, high) if fewer is None else (fewer, low, middle)
    reasons = {name: f"{costs[name]:.2%} of the outputs' variance by itself" for name in order[:high]}
    beside = {name: "between float layers" for name in shop.layers if name not in found.nodes}
    return Choice(found.nodes, found.model, found.ratio, {**beside, **choice.reasons, **reasons})


def _order(shop: Workshop, choice: Choice, judge: Judge) -> tuple[list[str], dict[str, float]]:
    """The layers, what costs most for the time that it saves first, and their costs."""
    before, after = (layer_seconds(shop, model) for model in (shop.prepared, choice.model))
    layers = [name for name in shop.layers if name in choice.nodes]
    costs = {name: judge.loss(shop.write([name])).worst for name in layers}
    typical = sum(before.values()) / max(len(before), 1)
    saved = {
        name: max(before.get(name, typical) - after.get(name, 0.0), _LEAST_SAVED * before.get(name, typical), 1e-9)
        for name in layers
    }
    return sorted(layers, key=lambda name: -costs[name] / saved[name]), costs


def _within(shop: Workshop, choice: Choice, judge: Judge, most: float, floats: Iterable[str]) -> Choice | None:
    """The choice with these layers in floats, if that loses little enough."""
    nodes = choice.nodes - set(floats)
    while nodes & set(shop.layers):
        model = shop.write(nodes)
        rounded = rounded_anyway(model)
        if not rounded:
            return Choice(nodes, model, choice.ratio) if judge.loss(model).worst <= most else None
        # What reads such a layer becomes float, too: two in a row are left alone.
        nodes -= _readers(shop.prepared, rounded)
    return None


def _readers(model: Model, names: Iterable[str]) -> set[str]:
    """The nodes behind some nodes, and behind the activations between."""
    wanted, found = set(names), set[str]()
    made = {name for node in model.graph.node if node.name in wanted for name in node.output}
    for node in model.graph.node:
        if made.isdisjoint(node.input):
            continue
        found.add(node.name)
        if node.op_type in ("Clip", "Relu"):
            made.update(node.output)
    return found
