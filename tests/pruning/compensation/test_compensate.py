"""Compensation on small models whose best answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxprune
from onnxprune.data.samples import collect
from onnxprune.errors import DataError, UsageError
from onnxprune.ir.graph import Node
from onnxprune.ops import Registry, contrib, elementwise, matmul
from onnxprune.ops.contrib import FusedMatMul
from onnxprune.ops.linear import LinearLayer, MatrixLayer, common
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder, run

Arrays = dict[str, NDArray[Any]]


def _values(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name).copy()


def _with(model: onnx.ModelProto, changes: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            tensor.CopyFrom(numpy_helper.from_array(changes[tensor.name].astype(np.float32), tensor.name))
    return model


def _samples(*shape: int) -> Arrays:
    return {"x": np.random.default_rng(5).standard_normal(shape).astype(np.float32)}


def _two_convs(bias: bool = True, pads: int = 1, normalised: bool = False) -> tuple[onnx.ModelProto, str, str]:
    """Conv, Relu, Conv; the names of both weights."""
    g = GraphBuilder(17)
    first, second = g.weight(8, 3, 3, 3), g.weight(5, 8, 3, 3)
    h = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, 9, 9)), first, g.vector(8), pads=[1] * 4))
    operands = [h, second, *([g.vector(5)] if bias else [])]
    h = g.op("Conv", *operands, pads=[pads] * 4)
    if normalised:
        h = g.op("BatchNormalization", h, g.vector(5), g.vector(5), g.vector(5), g.vector(5, positive=True))
    h = g.op("Relu", h)
    g.output(g.op("Conv", h, g.weight(2, 5, 1, 1)), ["n", 2, 9 - 2 * (1 - pads), 9 - 2 * (1 - pads)])
    return g.model(), first, second


def _removing(model: onnx.ModelProto, weight: str, channels: list[int]) -> Plan:
    """The plan that removes these filters of a weight, and what is coupled with them."""
    from onnxprune.pruning.choosing import removed_by_axis

    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    owner = coupling.class_of[coupling.axes.id(weight, 0)]
    return Plan(removed_by_axis(analysis, coupling.class_labels(owner)[channels]))


def _outputs(model: onnx.ModelProto, feeds: Arrays) -> NDArray[Any]:
    return np.asarray(run(model, feeds)[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_repeated_channel_is_made_good_completely(bias: bool, normalised: bool) -> None:
    model, first, _ = _two_convs(bias, normalised=normalised)
    weight, vector = _values(model, first), model.graph.node[0].input[2]
    shift = _values(model, vector)
    weight[6], shift[6] = 2 * weight[1], 2 * shift[1]
    _with(model, {first: weight, vector: shift})
    plan = _removing(model, first, [6])
    pruned = onnxprune.apply(model, plan)
    data = _samples(48, 3, 9, 9)
    result = compensate(pruned, model, plan, data)
    wanted = _outputs(model, data)
    plain = np.abs(_outputs(pruned.to_proto(), data) - wanted).max()
    assert np.abs(_outputs(result.model.to_proto(), data) - wanted).max() < 1e-2 * plain
    assert [fit.name for fit in result.layers] == [n.name for n in model.graph.node if n.op_type == "Conv"][1:]
    assert result.layers[0].after < 1e-4 < 1e-2 < result.layers[0].before
    onnx.checker.check_model(result.model.to_proto())


@pytest.mark.parametrize("method", ["bias", "refit"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_channel_goes_into_the_bias(method: str, bias: bool) -> None:
    model, first, _ = _two_convs(bias, pads=0)
    weight, vector = _values(model, first), model.graph.node[0].input[2]
    shift = _values(model, vector)
    weight[3], shift[3] = 0, 1.7
    _with(model, {first: weight, vector: shift})
    plan = _removing(model, first, [3])
    pruned = onnxprune.apply(model, plan)
    data = _samples(8, 3, 9, 9)
    result = compensate(pruned, model, plan, data, method=method)
    wanted = _outputs(model, data)
    assert np.abs(_outputs(pruned.to_proto(), data) - wanted).max() > 0.1
    np.testing.assert_allclose(_outputs(result.model.to_proto(), data), wanted, atol=1e-4)


def test_biases_alone_make_the_mean_outputs_right_also_with_padding() -> None:
    model, first, second = _two_convs()
    plan = _removing(model, first, [0, 4, 5])
    data = _samples(16, 3, 9, 9)
    result = compensate(onnxprune.apply(model, plan), model, plan, data, method="bias")
    tensor = next(n.output[0] for n in model.graph.node if second in n.input)
    means = []
    for proto in (model, result.model.to_proto()):
        shown = onnx.ModelProto()
        shown.CopyFrom(proto)
        shown.graph.output.add().name = tensor
        means.append(run(shown, data)[1].mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(means[1], means[0], atol=1e-5)
    np.testing.assert_array_equal(result.model.weights[second].array, np.delete(_values(model, second), [0, 4, 5], 1))


def test_the_fit_of_one_layer_is_least_squares() -> None:
    """Gemm, Relu, Gemm: the second one's weights against numpy, with the ridge that was chosen."""
    g = GraphBuilder(17)
    first = g.weight(6, 12)
    h = g.op("Relu", g.op("Gemm", g.input("x", ("n", 6)), first, g.vector(12)))
    last = g.weight(12, 4)
    g.output(g.op("Gemm", h, last, g.vector(4)), ["n", 4])
    model = g.model()
    from onnxprune.pruning.choosing import removed_by_axis

    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    labels = coupling.class_labels(coupling.class_of[coupling.axes.id(first, 1)])
    gone = [1, 4, 5, 9]
    plan = Plan(removed_by_axis(analysis, labels[gone]))
    data = _samples(200, 6)
    result = compensate(onnxprune.apply(model, plan), model, plan, data)
    share = result.layers[0].share
    assert share is not None
    hidden = np.maximum(data["x"] @ _values(model, first) + _values(model, model.graph.node[0].input[2]), 0)
    hidden = np.delete(hidden, gone, axis=1).astype(np.float64)
    wanted = _outputs(model, data).astype(np.float64)
    start = np.delete(_values(model, last), gone, axis=0)
    x, y = hidden - hidden.mean(axis=0), wanted - wanted.mean(axis=0)
    ridge = share * np.square(x).mean() * len(x)
    rows = np.vstack([x, np.sqrt(ridge) * np.eye(8)]), np.vstack([y, np.sqrt(ridge) * start])
    fitted = np.linalg.lstsq(*rows, rcond=None)[0]
    np.testing.assert_allclose(result.model.weights[last].array, fitted, atol=1e-4)


def test_a_layer_makes_good_what_its_branch_is_added_to() -> None:
    """x + f(x): the removed channels of the stream are gone, those that stay are as before."""
    g = GraphBuilder(17)
    stem = g.weight(8, 3, 3, 3)
    x = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, 9, 9)), stem, pads=[1] * 4))
    a = g.op("Conv", x, g.weight(8, 8, 3, 3), pads=[1] * 4)
    x2 = g.op("Add", a, x)
    b = g.op("Conv", g.op("Relu", x2), g.weight(8, 8, 1, 1))
    y = g.op("Add", x2, b)
    g.output(g.op("Conv", y, g.weight(2, 8, 1, 1)), ["n", 2, 9, 9])
    model = g.model()
    plan = _removing(model, stem, [1, 2])
    data = _samples(64, 3, 9, 9)
    result = compensate(onnxprune.apply(model, plan), model, plan, data)

    def stream(proto: onnx.ModelProto) -> NDArray[Any]:
        shown = onnx.ModelProto()
        shown.CopyFrom(proto)
        shown.graph.output.add().name = y
        return np.asarray(run(shown, data)[1])

    wanted = np.delete(stream(model), [1, 2], axis=1)
    found = stream(result.model.to_proto())
    # The mean of the sum is right, which it is not if the last layer looks at its own output alone.
    np.testing.assert_allclose(found.mean(axis=(0, 2, 3)), wanted.mean(axis=(0, 2, 3)), atol=1e-3)


def test_weights_that_several_layers_share_stay_and_are_named() -> None:
    g = GraphBuilder(17)
    first, shared = g.weight(8, 3, 1, 1), g.weight(8, 8, 1, 1)
    h = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, 5, 5)), first))
    h = g.op("Relu", g.op("Conv", h, shared))
    h = g.op("Conv", h, shared)
    g.output(g.op("Conv", h, g.weight(2, 8, 1, 1)), ["n", 2, 5, 5])
    model = g.model()
    plan = _removing(model, first, [0])
    result = compensate(onnxprune.apply(model, plan), model, plan, _samples(16, 3, 5, 5))
    assert len(result.skipped) == 2
    assert set(result.skipped.values()) == {"its weight serves several layers"}
    np.testing.assert_array_equal(
        result.model.weights[shared].array, onnxprune.apply(model, plan).weights[shared].array
    )


def test_a_fixed_batch_size_is_kept_to() -> None:
    model, first, _ = _two_convs()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    plan = _removing(model, first, [0, 1])
    pruned = onnxprune.apply(model, plan)
    assert compensate(pruned, model, plan, _samples(10, 3, 9, 9)).samples == 8
    with pytest.raises(DataError, match="takes 4 samples at once, and there are only 3"):
        compensate(pruned, model, plan, _samples(3, 3, 9, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], "empty"),
        (lambda x: np.where(np.arange(9) == 3, np.nan, x).astype(np.float32), "NaN"),
        (lambda x: x[:, :2], "takes samples of 3 × 9 × 9, and those of the calibration data are 2 × 9 × 9"),
        (lambda x: x[0], "takes samples of"),
    ],
)
def test_bad_calibration_data_is_refused(change: Any, message: str) -> None:
    model, _, _ = _two_convs()
    with pytest.raises(DataError, match=message):
        collect({"x": change(_samples(4, 3, 9, 9)["x"])}, onnxprune.load(model))
    with pytest.raises(DataError, match="nothing for input 'x'"):
        collect({"image": _samples(4, 3, 9, 9)["x"]}, onnxprune.load(model))


def test_activations_that_overflow_are_named() -> None:
    model, first, _ = _two_convs()
    plan = _removing(model, first, [0])
    pruned = onnxprune.apply(model, plan)
    with pytest.raises(DataError, match="NaN or infinite values on the calibration data"):
        compensate(pruned, model, plan, {"x": np.full((4, 3, 9, 9), 3e38, dtype=np.float32)})


def test_compress_certifies_the_removal_and_reports_the_effect(tmp_path: Path) -> None:
    model, _, _ = _two_convs()
    data = {"x": np.random.default_rng(0).standard_normal((80, 3, 9, 9)).astype(np.float32)}
    plain = onnxprune.compress(model, channels=0.4, calibration=data, calibration_samples=64, compensate="none")
    fitted = onnxprune.compress(model, channels=0.4, calibration=data, calibration_samples=64, compensate="refit")
    assert fitted.certificate is not None
    assert fitted.certificate.passed
    assert plain.fidelity is not None
    assert fitted.fidelity is not None
    assert fitted.fidelity.samples == 16
    assert fitted.fidelity.outputs[0].error < 0.7 * plain.fidelity.outputs[0].error
    assert plain.compensation is None
    with pytest.raises(UsageError, match="needs calibration data"):
        onnxprune.compress(model, channels=0.4, compensate="refit")
    with pytest.raises(UsageError, match="choose one of refit, bias, batchnorm"):
        onnxprune.compress(model, channels=0.4, calibration=data, compensate="magic")


def test_a_layer_of_ones_own_is_refitted() -> None:
    g = GraphBuilder(17, domains={"com.microsoft": 1})
    first, second = g.weight(6, 12), g.weight(12, 4)
    h = g.op("Relu", g.op("MatMul", g.input("x", ("n", 6)), first))
    g.output(g.op("FusedMatMul", h, second, domain="com.microsoft", transA=0), ["n", 4])
    model = g.model()

    class Product(FusedMatMul):
        """The same, and it says that it is a product."""

        def linear(self, node: Node) -> LinearLayer:
            return MatrixLayer(**common(node, groups=1, in_dim=1, out_dim=1, bias=-1), transposed=False, scale=1.0)

    others = [o for o in contrib.OPERATORS if not isinstance(o, FusedMatMul)]
    own = Registry([*matmul.OPERATORS, *elementwise.OPERATORS, *others, Product()])
    plan = onnxprune.plan(model, channels=0.5, seed=1)
    pruned = onnxprune.apply(model, plan)
    data = _samples(64, 6)
    assert not compensate(pruned, model, plan, data).layers
    fits = compensate(pruned, model, plan, data, registry=own).layers
    assert [fit.after < fit.before for fit in fits if fit.share is not None] == [True]


@pytest.mark.parametrize("method", ["bias", "refit"])
@pytest.mark.parametrize("rows", [6, 5])
@pytest.mark.parametrize("added", [False, True])
def test_a_normalisation_of_rows_is_none_of_the_columns_that_a_product_makes(
    method: str, rows: int, added: bool
) -> None:
    g = GraphBuilder(17)
    x, first = g.input("x", ("n", rows, 4)), g.weight(4, 12)
    other = g.op("MatMul", x, g.weight(4, 6))
    h = g.op("MatMul", g.op("Relu", g.op("MatMul", x, first)), g.weight(12, 6))
    scale, variance = g.vector(rows, positive=True), g.constant(np.arange(1, rows + 1), dtype=np.float32)
    h = g.op("BatchNormalization", h, scale, g.vector(rows), g.vector(rows), variance)
    g.output(g.op("Add", h, other) if added else h, ["n", rows, 6])
    model = g.model()
    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    labels = coupling.class_labels(coupling.class_of[coupling.axes.id(first, 1)])
    from onnxprune.pruning.choosing import removed_by_axis

    plan = Plan(removed_by_axis(analysis, labels[:6]))
    pruned, data = onnxprune.apply(model, plan), _samples(64, rows, 4)
    result = compensate(pruned, model, plan, data, method=method)
    wanted = _outputs(model, data)
    before, after = (float(np.square(_outputs(one.to_proto(), data) - wanted).mean()) for one in (pruned, result.model))
    # A product has no place for a bias of its own: without, there is nothing to do for it but a fit without one.
    assert after < 0.9 * before if method == "refit" else after == before
