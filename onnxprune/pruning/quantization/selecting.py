"""Which nodes compute in integers: those whose time, measured, that shortens, as long as the outputs stay."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxprune.data.samples import Samples
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.tracing import Trace, traced
from onnxprune.passes.merge_groups import MergeGroups
from onnxprune.pruning.quantization.calibrating import Ranges
from onnxprune.pruning.quantization.formats import Format
from onnxprune.pruning.quantization.measuring import seconds_of
from onnxprune.pruning.quantization.writing import rounded_anyway, write_quantised

#: What a change has to save to be kept: less is noise.
_WORTH = 0.98
_RUNS = 8
#: Channels of joined groups: with AMX 64 are fastest (ResNeXt-50 takes .24 so), without 32 (.26; .28 with 64).
_JOINED = (64, 32)
_QUIET = 0.25
#: What onnxruntime adds to the names of nodes and tensors where it fuses nodes or changes their layout.
_ADDED = re.compile(r"^fused |_nchwc$|_token_\d+$|_nhwc$")


@dataclass(frozen=True)
class Workshop:
    """What all quantised versions of a model have in common.

    Attributes:
        source: the model as it was given, whose time counts.
        prepared: what is quantised.
        ranges: of its tensors.
        format: of the numbers.
        samples: inputs; the first is what is timed.
        engine: threads and provider.
        layers: the names of the nodes with weights that may become integers.
        others: of the other nodes.
    """

    source: Model
    prepared: Model
    ranges: Ranges
    format: Format
    samples: Samples
    engine: Engine
    layers: tuple[str, ...]
    others: tuple[str, ...]

    def write(self, nodes: Collection[str]) -> Model:
        """The model with these nodes in integers."""
        return write_quantised(self.prepared, self.ranges, nodes, self.format)

    def trace(self, model: Model) -> Trace:
        """Where the time of a run goes."""
        inputs = next(self.samples.part(0, self.samples.step if self.samples.fixed else 1).batches())
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.save(path)
            return traced(path, inputs, self.engine, runs=_RUNS, quantile=_QUIET)


@dataclass(frozen=True)
class Choice:
    """The nodes in integers, the file, and its time over the original's; ``reasons`` by layer that stays float."""

    nodes: frozenset[str]
    model: Model
    ratio: float
    reasons: Mapping[str, str] = field(default_factory=dict)


def with_joined_groups(shop: Workshop) -> Iterator[Workshop]:
    """The same for a model whose grouped convolutions have fewer groups, if it has any that can be joined."""
    for channels in _JOINED:
        joined = MergeGroups(channels).run(shop.prepared)
        if joined.modified:
            yield replace(shop, prepared=joined.model)


def fastest_of(shops: Sequence[Workshop]) -> tuple[Workshop, Choice | None]:
    """The nodes whose integers make the whole file fastest, by trying; None where no file is faster than the original.

    First come all nodes, with each way to write them, and the layers alone; then the layers that take longer than
    before go, as long as that helps.
    """
    shop, best = shops[0], _tried(shops[0], frozenset((*shops[0].layers, *shops[0].others)))
    for other in shops[1:]:
        if (found := _better(best, _tried(other, best.nodes))) is not best:
            shop, best = other, found
    if shop.others:
        best = _better(best, _tried(shop, frozenset(shop.layers)))
    while slow := _slower(shop, best):
        without = _tried(shop, best.nodes - slow.keys())
        reasons = {**best.reasons, **slow}
        without = replace(without, reasons={name: why for name, why in reasons.items() if name not in without.nodes})
        if _better(best, without) is best:
            break
        best = without
    return shop, best if best.ratio < 1 else None


def _better(best: Choice, other: Choice) -> Choice:
    return other if other.ratio < _WORTH * best.ratio else best


def _tried(shop: Workshop, nodes: frozenset[str]) -> Choice:
    model = shop.write(nodes)
    # What onnxruntime would round by itself is better rounded here, with a scale for every channel.
    while (rounded := rounded_anyway(model)) & frozenset(shop.layers):
        nodes |= rounded
        model = shop.write(nodes)
    before, after = seconds_of([shop.source, model], shop.samples, shop.engine)
    return Choice(nodes, model, after / before)


def _slower(shop: Workshop, choice: Choice) -> dict[str, str]:
    """The layers that take longer in integers, with the times."""
    before, after = (layer_seconds(shop, model) for model in (shop.prepared, choice.model))
    found = {}
    for name in shop.layers:
        if name in choice.nodes and name in before and name in after and after[name] > before[name]:
            found[name] = f"{1e3 * after[name]:.3f} ms in integers, {1e3 * before[name]:.3f} ms in floats"
    return found


def layer_seconds(shop: Workshop, model: Model) -> dict[str, float]:
    """Seconds of every layer that a trace tells apart, by name; what is fused into it is part of it."""
    makers: dict[str, str] = {}
    for node in shop.prepared.graph.node:
        for name in node.output:
            makers[name] = node.name if node.name in shop.layers or not node.input else makers.get(node.input[0], "")
        makers.setdefault(node.name, node.name)
    found: dict[str, float] = {}
    for entry in shop.trace(model).nodes:
        name = entry.name
        while (shorter := _ADDED.sub("", name)) != name:
            name = shorter
        layer = name if name in shop.layers else makers.get(name, "")
        if layer in shop.layers:
            found[layer] = found.get(layer, 0.0) + entry.seconds
    return found
