"""Regions of random networks give way: valid, running, equal to the original in which numpy computes what is there."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

import onnxprune
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.regions import Regions
from onnxprune.ops.substitutes import RESIZED, WAYS
from onnxprune.pruning.plan import Plan, Replacement
from onnxprune.pruning.resizing import resized
from onnxprune.pruning.substituting import place
from tests.random_graphs.strategy import RandomGraph, build, random_graphs

_EXAMPLES = os.environ.get("ONNXPRUNE_RANDOM_GRAPHS")


def random_plan(model: Model, seed: int, most: int = 3) -> Plan:
    """Up to so many regions that do not overlap, of random kinds that fit."""
    rng = np.random.default_rng(seed)
    graph = model.derived(Graph)
    regions = Regions(graph)
    layers = [layer.node for layer in onnxprune.analyze(model).costs.layers]
    found, taken = list(regions.find(layers, 4)), set[int]()
    chosen: list[Replacement] = []
    for index in rng.permutation(len(found))[: 20 * most]:
        region = found[index]
        kind = WAYS[rng.integers(len(WAYS))]
        wide = kind in ("depthwise", "full") or (kind == "factors" and bool(rng.integers(2)))
        kernel = (3,) * (len(graph.shapes.extents[region.exit]) - 2) if wide else ()
        rank = int(rng.integers(1, 4)) if kind == "factors" else 0
        inner = int(rng.integers(0, 3)) if kind == "factors" and wide else 0
        if kind == RESIZED:
            sides = graph.shapes.extents[region.entry][2:]
            kernel = tuple(int(rng.integers(1, 2 * side + 1)) for side in sides)
        try:
            one = Replacement(region.entry, region.exit, kind, kernel, rank, inner)
            if kind == RESIZED:
                resized(model, one)
                nodes = regions.between(one.entry, one.exit)
            else:
                nodes = place(graph, regions, one).nodes
        except PlanError:
            continue
        if taken.isdisjoint(nodes) and len(chosen) < most:
            taken.update(nodes)
            chosen.append(one)
    return Plan({}, replaced=tuple(chosen))


def replace_some(graph: RandomGraph) -> Plan:
    model = onnxprune.analyze(graph.model).model
    plan = random_plan(model, graph.seed)
    if plan:
        result = onnxprune.apply(model, plan)
        onnx.checker.check_model(result.to_proto())
        certificate = onnxprune.verify(model, result, plan)
        assert certificate, certificate.sentences
        assert certificate.replaced == len(plan.replaced)
    return plan


@settings(
    max_examples=int(_EXAMPLES or 60),
    derandomize=_EXAMPLES is None,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(graph=random_graphs())
def test_regions_of_random_graphs_give_way(graph: RandomGraph) -> None:
    replace_some(graph)


def test_random_graphs_have_regions() -> None:
    """The test above is worth something."""
    plans = [replace_some(build(seed, 10)) for seed in range(12)]
    assert sum(len(plan.replaced) for plan in plans) >= 12
    assert len({one.kind for plan in plans for one in plan.replaced}) >= 4


@pytest.mark.parametrize(
    ("seed", "size"),
    [(719, 6), (55, 10)],
    ids=["products that cancel each other", "a tensor whose type onnx does not know"],
)
def test_right_files_that_were_refused(seed: int, size: int) -> None:
    assert replace_some(build(seed, size))
