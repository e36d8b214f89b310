"""What every region of a graph costs, and what it computes between: for readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import MeasurementError
from onnxprune.ir.engine import Engine
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.regions import Regions
from onnxprune.ir.sampling import Rounds
from onnxprune.ir.timing import taking_turns
from onnxprune.ops.layers import linear_layer
from onnxprune.pruning.regions.candidates import MOST_LAYERS

ROUNDS = Rounds(warmup=2, most=60, least=9, seconds=0.25, turn=0.001)
"""How long a region is timed."""


@dataclass(frozen=True)
class RegionCost:
    """A region: from its entry to its exit, with the extents of both, its layers, and what they cost.

    ``flops`` are multiply-accumulates, ``memory`` bytes of weights and outputs, ``seconds`` those of a run of it
    alone, in onnxruntime with one thread: None where it was not timed, or cannot be.
    """

    entry: str
    exit: str
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    nodes: int
    layers: tuple[str, ...]
    params: float
    flops: float
    memory: float
    seconds: float | None = None


def region_costs(analysis: Analysis, *, timed: bool = False) -> Iterator[RegionCost]:
    """All regions of up to eight layers, in graph order; ``timed`` runs each of them for a quarter of a second.

    The costs of nodes that are no layers are none of a region's.
    """
    model = analysis.model
    graph, costs = model.derived(Graph), analysis.costs
    nodes = [layer.node for layer in costs.layers]
    spent = {
        metric: dict(zip(nodes, costs.per_layer(metric, costs.full).tolist(), strict=True))
        for metric in ("params", "flops", "memory")
    }
    extents = graph.shapes.extents
    layers = [index for index in nodes if linear_layer(graph.nodes[index])]
    for region in Regions(graph).find(layers, MOST_LAYERS):
        if region.entry not in extents or region.exit not in extents:
            continue
        sums = {metric: sum(of.get(index, 0.0) for index in region.nodes) for metric, of in spent.items()}
        seconds = seconds_of(cut_out(model, region.entry, region.exit)) if timed else None
        ends = extents[region.entry], extents[region.exit]
        names = tuple(graph.nodes[index].name for index in region.layers)
        yield RegionCost(region.entry, region.exit, *ends, len(region.nodes), names, **sums, seconds=seconds)


def cut_out(model: Model, entry: str, exit: str) -> Model:
    """A region of a normalised model as a model of its own, from its entry to its exit."""
    graph = model.derived(Graph)
    nodes = [graph.nodes[index] for index in Regions(graph).between(entry, exit)]
    shapes = graph.shapes
    ends = [
        helper.make_tensor_value_info(name, shapes.elem_types[name], shapes.extents[name]) for name in (entry, exit)
    ]
    held = {name: model.weights[name] for node in nodes for name in node.reads if name in model.weights}
    return model.piece([node.proto for node in nodes], ends[:1], ends[1:], held)


def noise_for(piece: Model) -> dict[str, NDArray[Any]]:
    """Something to time a region with. Times do not depend on values, but for numbers that are next to nothing."""
    found = {}
    for given in piece.graph.input:
        tensor = given.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        found[given.name] = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return found


def seconds_of(piece: Model) -> float | None:
    """The median time of a run; None where the piece does not run alone."""
    try:
        return float(np.median(taking_turns([piece], noise_for(piece), ROUNDS, Engine())))
    except MeasurementError:
        return None
