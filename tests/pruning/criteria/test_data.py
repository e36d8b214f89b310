"""Criteria that look at calibration data, against sums written out and PyTorch's own gradients."""

from __future__ import annotations

import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.data.samples import Samples, collect
from onnxprune.data.statistics import channel_statistics
from onnxprune.errors import UsageError
from onnxprune.pruning.criteria import Scoring, criterion, reconstruction
from tests.helpers import GraphBuilder, run

Array = NDArray[Any]
CHANNELS = 7


def _perceptron(seed: int = 0) -> onnx.ModelProto:
    """Gemm, Relu, Gemm: features 5, hidden 7, outputs 4."""
    g = GraphBuilder(17, seed)
    h = g.op("Relu", g.op("Gemm", g.input("x", ("n", 5)), g.weight(5, CHANNELS), g.vector(CHANNELS)))
    g.output(g.op("Gemm", h, g.weight(CHANNELS, 4), g.vector(4)), ["n", 4])
    return g.model()


def _convolutions() -> onnx.ModelProto:
    g = GraphBuilder(17)
    h = g.op("Conv", g.input("x", ("n", 3, 6, 6)), g.weight(CHANNELS, 3, 3, 3), g.vector(CHANNELS), pads=[1] * 4)
    h = g.op("Conv", g.op("Relu", h), g.weight(4, CHANNELS, 3, 3), g.vector(4), pads=[1] * 4)
    g.output(g.op("Flatten", g.op("GlobalAveragePool", h)), ["n", 4])
    return g.model()


def _values(model: onnx.ModelProto, node: int, index: int) -> Array:
    name = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")][node].input[index]
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name).astype(np.float64)


def _samples(model: onnx.ModelProto, count: int = 50) -> Samples:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(1).standard_normal((count, *shape)).astype(np.float32)
    return collect({"x": x}, onnxprune.load(model))


def _scores(model: onnx.ModelProto, name: str, samples: Samples) -> tuple[Analysis, Array]:
    """Scores of the hidden channels, in order."""
    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    weight = next(n for n in model.graph.node if n.op_type in ("Conv", "Gemm")).input[1]
    owner = coupling.class_of[coupling.axes.id(weight, 0 if model.graph.node[0].op_type == "Conv" else 1)]
    scoring = Scoring(analysis, np.random.default_rng(0), samples)
    return analysis, criterion(name).scores(scoring)[coupling.class_labels(owner)]


def _hidden(model: onnx.ModelProto, samples: Samples) -> Array:
    """Activations that the second layer reads, [samples · positions, channels]."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.add().name = next(n.output[0] for n in model.graph.node if n.op_type == "Relu")
    return np.moveaxis(run(shown, dict(samples.inputs))[1], 1, -1).reshape(-1, CHANNELS).astype(np.float64)


def test_statistics_are_those_of_all_positions() -> None:
    model = _convolutions()
    samples = _samples(model)
    name = next(n.output[0] for n in model.graph.node if n.op_type == "Relu")
    found = channel_statistics(onnxprune.load(model), samples, {name: 1, "x": 1}, covariances=[name])
    hidden = _hidden(model, samples)
    assert found[name].count == len(hidden) == 50 * 36
    np.testing.assert_allclose(found[name].mean, hidden.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[name].magnitude, np.abs(hidden).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[name].variance, hidden.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[name].covariance, np.cov(hidden.T, bias=True), atol=1e-5)
    np.testing.assert_allclose(found["x"].mean, samples.inputs["x"].mean(axis=(0, 2, 3)), atol=1e-6)
    assert found["x"].covariance is None


@pytest.mark.parametrize("build", [_perceptron, _convolutions])
def test_shares_of_what_a_consumer_receives(build: Any) -> None:
    model = build()
    samples = _samples(model)
    hidden, weight = _hidden(model, samples), _values(model, 1, 1)
    rows = np.moveaxis(weight, 1, 0) if weight.ndim == 4 else weight  # input channels first
    norms = np.linalg.norm(rows.reshape(CHANNELS, -1), axis=1)
    activation = np.abs(hidden).mean(axis=0) * norms
    variance = hidden.var(axis=0) * norms**2
    np.testing.assert_allclose(_scores(model, "activation", samples)[1], activation / activation.sum(), rtol=1e-4)
    np.testing.assert_allclose(_scores(model, "variance", samples)[1], variance / variance.sum(), rtol=1e-4)
    magnitudes = np.abs(rows).reshape(CHANNELS, 4, -1).sum(axis=2)
    signals = np.abs(hidden).mean(axis=0)[:, None] * magnitudes
    relief = (signals / (signals.sum(axis=0) + np.abs(_values(model, 1, 2)))).mean(axis=1)
    np.testing.assert_allclose(_scores(model, "relief", samples)[1], relief, rtol=1e-4)


def _error(hidden: Array, weight: Array, gone: tuple[int, ...], *, refitted: bool) -> float:
    """The squared error of the outputs without some channels, with the best bias, over the outputs' variance."""
    x = hidden - hidden.mean(axis=0)
    y = x @ weight
    kept = np.delete(x, gone, axis=1)
    rest = np.linalg.lstsq(kept, y, rcond=None)[0] if refitted else np.delete(weight, gone, axis=0)
    return float(np.square(y - kept @ rest).sum() / np.square(y).sum())


@pytest.fixture
def independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are what they seem to be, and errors are those of the layer, not of the model's outputs."""
    monkeypatch.setattr(reconstruction, "_INDEPENDENT", 1.0)
    monkeypatch.setattr(reconstruction, "_influences", lambda scoring, found: {})


@pytest.mark.usefixtures("independent")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["reconstruction", "refit"])
def test_what_goes_first_adds_the_least_error(name: str, seed: int) -> None:
    """The greedy order, against trying every channel at every step on the outputs themselves."""
    model = _perceptron(seed)
    samples = _samples(model, 400)
    hidden, weight = _hidden(model, samples), _values(model, 1, 1)
    _, scores = _scores(model, name, samples)
    gone: tuple[int, ...] = ()
    wanted = []
    for _ in range(CHANNELS - 3):
        trials = {c: _error(hidden, weight, (*gone, c), refitted=name == "refit") for c in range(CHANNELS)}
        best = min((c for c in trials if c not in gone), key=trials.__getitem__)
        wanted.append((best, trials[best] - _error(hidden, weight, gone, refitted=name == "refit")))
        gone = (*gone, best)
    assert np.argsort(scores)[: len(gone)].tolist() == list(gone)
    highest = np.maximum.accumulate([added for _, added in wanted])
    np.testing.assert_allclose(np.sort(scores)[: len(gone)], highest, rtol=0.1, atol=2e-3)


@pytest.mark.usefixtures("independent")
def test_refit_sees_what_other_channels_can_replace() -> None:
    """Of two equal channels one goes for nothing, whatever it weighs; without a refit it would be dear."""
    model = _perceptron()
    first, bias = _values(model, 0, 1), _values(model, 0, 2)
    first[:, 5], bias[5] = first[:, 2], bias[2]
    names = model.graph.node[0].input
    for tensor in model.graph.initializer:
        if tensor.name == names[1]:
            tensor.CopyFrom(numpy_helper.from_array(10 * first.astype(np.float32), tensor.name))
        elif tensor.name == names[2]:
            tensor.CopyFrom(numpy_helper.from_array(10 * bias.astype(np.float32), tensor.name))
    samples = _samples(model, 400)
    refit = _scores(model, "refit", samples)[1]
    assert int(np.argmin(refit)) in (2, 5)
    assert refit.min() < 0.05 * np.sort(_scores(model, "reconstruction", samples)[1])[1]
    pairs = {
        pair: _error(_hidden(model, samples), _values(model, 1, 1), pair, refitted=True)
        for pair in combinations(range(CHANNELS), 1)
    }
    assert pairs[(2,)] < 1e-9


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("build", [_perceptron, _convolutions])
def test_taylor_is_the_gradient_of_a_gate(build: Any, labelled: bool) -> None:
    """Each hidden channel times a gate of 1: the squared derivative of the loss by it, averaged over batches."""
    torch = pytest.importorskip("torch")
    model = build()
    samples = _samples(model, 48)
    targets = np.random.default_rng(2).integers(0, 4, 48) if labelled else None
    samples = Samples(samples.inputs, targets, 16)
    first, bias, second, shift = (torch.tensor(_values(model, n, i)) for n, i in ((0, 1), (0, 2), (1, 1), (1, 2)))
    wanted = np.zeros(CHANNELS)
    for part in samples.slices():
        x = torch.tensor(samples.inputs["x"][part]).double()
        gate = torch.ones(CHANNELS, dtype=torch.float64, requires_grad=True)
        if first.ndim == 2:
            output = torch.relu((x @ first + bias) * gate) @ second + shift
        else:
            hidden = torch.nn.functional.conv2d(x, first, bias, padding=1) * gate.reshape(1, -1, 1, 1)
            output = torch.nn.functional.conv2d(torch.relu(hidden), second, shift, padding=1).mean(dim=(2, 3))
        answers = output.detach().argmax(dim=1) if targets is None else torch.tensor(targets[part])
        torch.nn.functional.cross_entropy(output, answers).backward()
        wanted += gate.grad.numpy() ** 2
    found = _scores(model, "taylor", samples)[1]
    np.testing.assert_allclose(found, wanted / 3, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("rows", [CHANNELS, 5])
def test_taylor_looks_for_columns_in_no_normalisation_of_rows(rows: int) -> None:
    pytest.importorskip("torch")

    def scores(normalised: bool) -> Array:
        g = GraphBuilder(17)
        weight, scale, shift = g.weight(4, CHANNELS), np.arange(1, rows + 1), np.arange(rows) / rows
        h = g.op("MatMul", g.input("x", ("n", rows, 4)), weight)
        if normalised:
            still = (g.constant(np.full(rows, value), dtype=np.float32) for value in (0, 1))
            vectors = (g.constant(vector, dtype=np.float32) for vector in (scale, shift))
            h = g.op("BatchNormalization", h, *vectors, *still, epsilon=0.0)
        else:
            one, other = (g.constant(vector[:, None], dtype=np.float32) for vector in (scale, shift))
            h = g.op("Add", g.op("Mul", h, one), other)
        g.output(g.op("MatMul", g.op("Relu", h), g.weight(CHANNELS, 3)), ["n", rows, 3])
        model = g.model()
        analysis = onnxprune.analyze(model)
        coupling = analysis.coupling
        labels = coupling.class_labels(coupling.class_of[coupling.axes.id(weight, 1)])
        found: Array = criterion("taylor").scores(Scoring(analysis, np.random.default_rng(0), _samples(model)))[labels]
        return found

    np.testing.assert_allclose(scores(normalised=True), scores(normalised=False), rtol=1e-3)


@pytest.mark.parametrize("name", ["activation", "relief", "variance", "reconstruction", "refit", "taylor"])
def test_without_data_they_say_what_they_need(name: str) -> None:
    with pytest.raises(UsageError, match=f"criterion '{name}' needs calibration data"):
        onnxprune.plan(_perceptron(), channels=0.5, criterion=name)


def test_channels_that_no_layer_reads_get_a_score_from_their_weights() -> None:
    """A Conv whose channels meet in a mean: nothing contracts over them."""
    g = GraphBuilder(17)
    h = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, 6, 6)), g.weight(CHANNELS, 3, 3, 3)))
    other = g.op("Relu", g.op("Conv", "x", g.weight(5, 3, 3, 3)))
    g.output(g.op("ReduceMax", h, axes=[1]), ["n", 1, 4, 4])
    g.output(g.op("Conv", other, g.weight(2, 5, 1, 1)), ["n", 2, 4, 4])
    model = g.model()
    analysis = onnxprune.analyze(model)
    scoring = Scoring(analysis, np.random.default_rng(0), _samples(model))
    for name in ("activation", "refit", "reconstruction"):
        scores = criterion(name).scores(scoring)
        for group in analysis.coupling.groups:
            assert np.isfinite(scores[group.atoms]).all()
            assert (scores[group.atoms] > 0).all()


def test_more_channels_than_a_matrix_is_made_for_take_no_matrix() -> None:
    """Of 5,000 channels a covariance would be 200 MB; the variances alone decide, and are as written out."""
    g = GraphBuilder(17)
    first, second = g.weight(5, 5000), g.weight(5000, 2)
    g.output(g.op("MatMul", g.op("Relu", g.op("MatMul", g.input("x", ("n", 5)), first)), second), ["n", 2])
    model = g.model()
    x = np.random.default_rng(1).standard_normal((32, 5)).astype(np.float32)
    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    labels = coupling.class_labels(coupling.class_of[coupling.axes.id(first, 1)])
    scoring = Scoring(analysis, np.random.default_rng(0), collect({"x": x}, analysis.model))
    tracemalloc.start()
    try:
        scores = criterion("refit").scores(scoring)[labels]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    hidden = np.maximum(x @ weights[first], 0).astype(np.float64)
    alone = hidden.var(axis=0) * np.square(weights[second]).sum(axis=1)
    np.testing.assert_array_equal(np.argsort(scores)[:20], np.argsort(alone)[:20])


def test_covariances_keep_to_the_memory_that_is_given() -> None:
    model = _convolutions()
    name = next(n.output[0] for n in model.graph.node if n.op_type == "Relu")
    arguments = (onnxprune.load(model), _samples(model), {name: 1})
    assert channel_statistics(*arguments, covariances=[name], memory=1 << 20)[name].covariance is not None
    scarce = channel_statistics(*arguments, covariances=[name], memory=100)[name]
    assert scarce.covariance is None
    assert (scarce.variance > 0).all()
