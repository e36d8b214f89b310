"""What a plan changes, layer by layer and in total, computed from the cost model without touching a weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune._display import MOST_ROWS, Table, long, totals_table
from onnxprune.analysis.analyzing import Analysis, LayerReport, again
from onnxprune.analysis.cost import METRICS
from onnxprune.errors import UsageError
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.substituting import replaced

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerCost:
    """Output channels, parameters (elements), FLOPs (multiply-accumulates) and memory (bytes) of one layer."""

    channels: int
    params: int
    flops: int
    memory: int


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after pruning."""

    name: str
    op_type: str
    before: LayerCost
    after: LayerCost


@dataclass(frozen=True)
class Comparison:
    """A model before and after pruning.

    ``before`` and ``after`` hold the totals (``params``, ``flops``, ``memory``, ``peak_activations``);
    ``approximate`` the reasons why pruned groups are approximate, empty if all are exact.
    """

    layers: tuple[LayerChange, ...]
    before: Mapping[str, float]
    after: Mapping[str, float]
    approximate: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {
            "before": dict(self.before),
            "after": dict(self.after),
            "layers": [asdict(layer) for layer in self.layers],
            "approximate": list(self.approximate),
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row per layer. Raises UsageError where pandas is not installed."""
        costs = [(cost, when) for cost in ("channels", "params", "flops", "memory") for when in ("before", "after")]
        rows = tuple(
            (layer.name, layer.op_type, *(getattr(getattr(layer, when), cost) for cost, when in costs))
            for layer in self.layers
        )
        return Table(("name", "op_type", *(f"{cost}_{when}" for cost, when in costs)), rows).to_pandas()

    def _repr_html_(self) -> str:
        """For notebooks: the totals, and every layer before and after."""
        rows = tuple(
            (
                layer.name,
                layer.op_type,
                _change(layer.before.channels, layer.after.channels),
                _change(layer.before.params, layer.after.params),
                _change(layer.before.flops, layer.after.flops),
                _change(layer.before.memory, layer.after.memory, "B"),
            )
            for layer in self.layers[:MOST_ROWS]
        )
        heads = ("layer", "op", "channels", "parameters", "MACs", "memory")
        layers = Table(heads, rows, "Layers", text=(0, 1), count=len(self.layers))
        return totals_table(self.before, self.after, "Totals").to_html() + layers.to_html()


def _change(before: float, after: float, unit: str = "") -> str:
    return long(before, unit) if before == after else f"{long(before, unit)} → {long(after, unit)}"


def compare(analysis: Analysis, plan: Plan) -> Comparison:
    """What ``plan`` changes. Raises PlanError where it does not fit the analysed model."""
    if plan.replaced:
        return _with_replaced(analysis, plan)
    per_class = removed_per_class(analysis, plan)
    costs = analysis.costs
    kept = costs.full - np.array([*(len(positions) for positions in per_class), 0], dtype=np.int64)
    before, after = _layer_costs(analysis, costs.full), _layer_costs(analysis, kept)
    layers = tuple(
        LayerChange(analysis.layer_name(layer), layer.op_type, old, new)
        for layer, old, new in zip(costs.layers, before, after, strict=True)
    )
    touched = {index for index, positions in enumerate(per_class) if len(positions)}
    reasons = dict.fromkeys(
        group.approximate
        for group in analysis.coupling.groups
        if group.approximate is not None
        and not group.is_exact(exact_norm=plan.exact_norm)
        and touched.intersection(group.classes.tolist())
    )
    return Comparison(layers, analysis.totals, _totals(analysis, kept), tuple(reasons))


_NOTHING = LayerCost(0, 0, 0, 0)


def _with_replaced(analysis: Analysis, plan: Plan) -> Comparison:
    """A comparison in which layers of replaced regions end, and those that stand for them begin."""
    base = replaced(analysis.model, plan.replaced)
    after = again(analysis, base)
    rest = compare(after, replace(plan, replaced=()))
    names = dict(zip(_by_name(after), rest.layers, strict=True))
    layers = [
        LayerChange(layer.name, layer.op_type, _cost(layer), names.pop(key).after if key in names else _NOTHING)
        for key, layer in _by_name(analysis).items()
    ]
    layers += [replace(layer, before=_NOTHING) for layer in names.values()]
    return replace(rest, layers=tuple(layers), before=analysis.totals)


def compare_models(
    before: Analysis, after: Analysis, name: str = "the pruned model", plan: Plan | None = None
) -> Comparison:
    """What differs between a model and a pruned form of it, read from both.

    Args:
        before: of the original.
        after: of the pruned model, for the same input shapes.
        name: of the pruned model, for messages.
        plan: what was done, if that is known; it is needed only where regions gave way.

    Raises:
        UsageError: the layers are not those of the original, or have grown.
    """
    if plan is not None and plan.replaced:
        return _with_replaced(before, plan)
    old, new = _by_name(before), _by_name(after)
    lacking = [key[0] for key in old if key not in new]
    extra = len(new) - (len(old) - len(lacking))
    if lacking or extra:
        first = f" (first '{lacking[0]}')" if lacking else ""
        raise UsageError(
            f"{name} is no pruned form of the model: of {len(before.layers)} layers it lacks {len(lacking)}{first}, "
            f"and it has {extra} others; give files that differ by pruning alone"
        )
    pairs = [(layer, new[key]) for key, layer in old.items()]
    grown = [was.name for was, now in pairs if now.channels > was.channels]
    if grown:
        raise UsageError(
            f"{name} has more channels than the model in {len(grown)} layers, first in '{grown[0]}'; "
            "give the original first and its pruned forms after it"
        )
    layers = tuple(LayerChange(was.name, was.op_type, _cost(was), _cost(now)) for was, now in pairs)
    return Comparison(layers, before.totals, after.totals, ())


def _by_name(analysis: Analysis) -> dict[tuple[str, int], LayerReport]:
    """The layers by name, and the how many-th of that name: files need not name their nodes apart."""
    seen: Counter[str] = Counter()
    found = {}
    for layer in analysis.layers:
        found[layer.name, seen[layer.name]] = layer
        seen[layer.name] += 1
    return found


def _cost(layer: LayerReport) -> LayerCost:
    return LayerCost(layer.channels, layer.params, layer.flops, layer.memory)


def _totals(analysis: Analysis, kept: IntArray) -> dict[str, float]:
    costs = analysis.costs
    totals: dict[str, float] = {metric: costs.total(metric, kept) for metric in METRICS}
    return {**totals, "peak_activations": costs.peak_activations(kept)}


def _layer_costs(analysis: Analysis, kept: IntArray) -> list[LayerCost]:
    costs, coupling = analysis.costs, analysis.coupling
    params, flops, memory = (costs.per_layer(metric, kept) for metric in METRICS)
    found = []
    for layer in costs.layers:
        owner = coupling.class_of.get(layer.output_axis)
        channels = coupling.axes.extents[layer.output_axis] if owner is None else int(kept[owner])
        at = layer.index
        found.append(LayerCost(channels, round(params[at]), round(flops[at]), round(memory[at])))
    return found
