"""Shared by tests of operator families: prune random atoms, demand the certificate, ask what is held and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.session import random_inputs
from onnxprune.ops.relations import Axis
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.masking import masked
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder, Pruned, random_atoms, run

#: Of 255, relative to the largest magnitude of an output.
SOME_STEPS = 0.1

InputShapes = Mapping[str, Sequence[int]]


def certify(
    model: onnx.ModelProto,
    seed: int = 0,
    share: float | None = 0.5,
    *,
    input_shapes: InputShapes | None = None,
    prunable: Sequence[tuple[str, int]] = (),
    rounding: bool = False,
) -> Pruned:
    """Remove a share of the atoms of every group and demand: valid, certified, and ``prunable`` axes are smaller.

    onnxruntime's optimisations change how a quantised model rounds. With ``rounding``, the certificate may differ by
    some steps, but pruned and masked model have to agree where both run as they are written.
    """
    analysis = onnxprune.analyze(model, input_shapes)
    atoms = random_atoms(analysis, np.random.default_rng(seed), share)
    plan = Plan(removed_by_axis(analysis, atoms))
    pruned = onnxprune.apply(model, plan)
    onnx.checker.check_model(pruned.to_proto())
    certificate = onnxprune.verify(model, pruned, plan, input_shapes=input_shapes)
    assert certificate.complete, certificate.sentences
    if rounding:
        _assert_equal_as_written(analysis, plan, pruned)
    for tensor, dim in prunable:
        assert plan.removed.get(tensor, {}).get(dim), (
            f"nothing was removed from {tensor}[{dim}]: {why(analysis, tensor)}"
        )
    return Pruned(analysis, plan, pruned, certificate)


def _assert_equal_as_written(analysis: Analysis, plan: Plan, pruned: onnxprune.Model) -> None:
    reference = masked(analysis, removed_per_class(analysis, plan))
    inputs = random_inputs(analysis.model, analysis.shapes.binding, 0)
    for wanted, found in zip(run(reference.to_proto(), inputs), run(pruned.to_proto(), inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))


def certify_often(
    model: onnx.ModelProto, *, input_shapes: InputShapes | None = None, prunable: Sequence[tuple[str, int]] = ()
) -> Pruned:
    """Half of every group, then some random choices of some groups."""
    for seed in range(1, 4):
        certify(model, seed, None, input_shapes=input_shapes)
    return certify(model, input_shapes=input_shapes, prunable=prunable)


def reasons(analysis: Analysis, tensor: str, dim: int) -> set[str]:
    """Why positions of an axis must stay."""
    return {pin.reason for pin in analysis.coupling.pins_on(analysis.coupling.axes.id(tensor, dim))}


def why(analysis: Analysis, tensor: str) -> str:
    """The reasons for all axes of a tensor, for messages."""
    rank = len(analysis.shapes.extents[tensor])
    return "; ".join(f"{Axis(tensor, dim)}: {sorted(reasons(analysis, tensor, dim))}" for dim in range(rank))


def conv(g: GraphBuilder, x: str, channels: int, filters: int, kernel: int = 1, group: int = 1) -> str:
    """A convolution that keeps height and width."""
    w = g.weight(filters, channels // group, kernel, kernel, base=f"conv{len(g.nodes)}")
    return g.op("Conv", x, w, g.vector(filters), kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=group)


def linear(g: GraphBuilder, x: str, features: int, units: int) -> str:
    """A MatMul with a weight, and its bias."""
    w = g.weight(features, units, fan_in=features, base=f"linear{len(g.nodes)}")
    return g.op("Add", g.op("MatMul", x, w), g.vector(units))
