"""The refit in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

import onnxprune
from onnxprune.data.memory import free_memory, memory_budget
from onnxprune.errors import UsageError
from onnxprune.ir.model import Model
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.compensation.activations import Bend
from onnxprune.pruning.compensation.gathering import Piece
from onnxprune.pruning.compensation.solving import solve_moments, way_of
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder

_WIDTH = 3000


def _wide(positions: int = 1) -> tuple[Model, Plan, dict[str, np.ndarray]]:
    """A Gemm (or a MatMul at several positions) with many inputs, a few of which go; 32 samples."""
    g = GraphBuilder(17)
    first = g.weight(4, _WIDTH)
    shape = ("n", 4) if positions == 1 else ("n", positions, 4)
    h = g.op("Relu", g.op("MatMul", g.input("x", shape), first))
    g.output(g.op("Add", g.op("MatMul", h, g.weight(_WIDTH, 3)), g.vector(3)), [*shape[:-1], 3])
    model = onnxprune.load(g.model())
    from onnxprune.pruning.choosing import removed_by_axis

    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    labels = coupling.class_labels(coupling.class_of[coupling.axes.id(first, 1)])
    x = np.random.default_rng(0).standard_normal((32, *shape[1:])).astype(np.float32)
    return model, Plan(removed_by_axis(analysis, labels[::50])), {"x": x}


def test_few_samples_of_many_inputs_take_little() -> None:
    """The products of the features alone would be 72 MB, of which several were held."""
    model, plan, data = _wide()
    pruned = onnxprune.apply(model, plan)
    tracemalloc.start()
    try:
        result = compensate(pruned, model, plan, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * _WIDTH * _WIDTH / 4
    fit = result.layers[0]
    assert fit.share is not None
    assert fit.unseen is not None
    assert fit.after <= fit.unseen < fit.before
    assert (fit.rows, fit.samples, fit.unknowns) == (32, 32, _WIDTH - 60)
    assert result.few == (fit,)


def test_what_memory_does_not_suffice_for_is_left_out_by_name() -> None:
    model, plan, data = _wide(64)
    pruned = onnxprune.apply(model, plan)
    ample = compensate(pruned, model, plan, data, memory=1 << 30)
    assert not ample.skipped
    assert ample.layers[0].rows == 32 * 64
    scarce = compensate(pruned, model, plan, data, memory=8 << 20)
    assert not scarce.skipped
    assert 16 <= scarce.layers[0].rows < 32 * 64
    assert scarce.layers[0].share is not None
    none = compensate(pruned, model, plan, data, memory=100_000)
    (name, reason), *_ = none.skipped.items()
    assert name == none.layers[0].name
    assert "2,940 × 3 weights takes" in reason
    assert reason.endswith("50.0 kB are allowed for it; its bias was")
    assert none.layers[0].after < none.layers[0].before
    assert none.layers[0].share is None
    with pytest.raises(UsageError, match="memory"):
        compensate(pruned, model, plan, data, memory=0)


def test_the_first_gemm_of_vgg_fits_into_four_gigabytes() -> None:
    way = way_of((1, 25088, 4096), 64, 2 << 30)
    assert (way.few, way.rows, way.reason) == (True, 64, None)
    assert way_of((1, 25088, 4096), 64, 1 << 28).reason is not None
    assert not way_of((1, 576, 64), 100_000, 1 << 30).few
    # More rows than memory has room for: as many as it has.
    assert 0 < way_of((1, 25088, 4096), 1_000_000, 2 << 30).rows < 4096


def test_never_more_than_half_of_what_is_free() -> None:
    assert 0 < memory_budget(None) <= 0.6 * free_memory()
    assert memory_budget(5) == 5


def test_a_fit_behind_an_activation_takes_what_it_is_given() -> None:
    rng = np.random.default_rng(0)
    features, outputs, rows = 600, 40, 1000
    shape = (1, features, outputs)
    x = rng.standard_normal((4, 1, rows, features)).astype(np.float32)
    start = rng.standard_normal(shape).astype(np.float32)
    bend, now = Bend(np.zeros(outputs), np.full(outputs, np.inf)), np.zeros((1, outputs))
    room = 4 * rows * 4 * (features + outputs)

    def parts() -> Iterator[Piece]:
        for at, some in enumerate(x):
            # Copies, as those of a layer are; what comes out is a fold of what goes in.
            yield Piece(some.copy(), np.abs(some @ start) - 20, np.arange(rows), at == 3)

    least = way_of(shape, 4 * rows, 1 << 40)
    assert not least.few
    needed = (1 << 40) - least.spare
    for memory, bends in ((needed + room, True), (needed + room - 1, False), (needed, False)):
        way = way_of(shape, 4 * rows, memory)
        assert way.reason is None
        assert not way.few
        tracemalloc.start()
        try:
            found = solve_moments(parts(), start, now, intercept=True, bend=bend, spare=way.spare)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        plain = solve_moments(parts(), start, now, intercept=True)
        assert np.array_equal(found.matrix, plain.matrix) != bends
        assert peak < memory
