"""Linear layers in a row or side by side become one where that is cheaper, and only where it is exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.ir.model import Model, load
from onnxprune.ir.session import Session
from onnxprune.passes._kernels import Kernel, in_parallel, in_series
from onnxprune.passes.merge_linear import MergeLinear


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def kinds(model: Model) -> list[str]:
    return [node.op_type for node in model.graph.node]


NORM = {"g": noise(4), "b1": noise(4), "m": noise(4), "v": np.abs(noise(4)) + 0.5}

MERGED: Mapping[str, tuple[str, Mapping[str, Any], list[str]]] = {
    "pointwise behind": (
        """g (float[1,4,9,9] x) => (float[1,6,9,9] y) {
            a = Conv <pads = [1,1,1,1]> (x, w, b)  y = Conv (a, p, c)
        }""",
        {"w": noise(8, 4, 3, 3), "b": noise(8), "p": noise(6, 8, 1, 1), "c": noise(6)},
        ["Conv"],
    ),
    "skip, normalised skip and pointwise beside": (
        """g (float[1,4,9,9] x) => (float[1,4,9,9] y) {
            a = Conv <pads = [1,1,1,1]> (x, w, b)  c = Conv (x, p)  s = Add (a, c)
            d = BatchNormalization (x, g, b1, m, v)  t = Add (s, d)  y = Add (t, x)
        }""",
        {"w": noise(4, 4, 3, 3), "b": noise(4), "p": noise(4, 4, 1, 1), **NORM},
        ["Conv"],
    ),
    "strides and dilations": (
        """g (float[1,2,21,21] x) => (float[1,2,5,5] y) {
            a = Conv <strides = [2,2], dilations = [2,2], pads = [2,2,2,2]> (x, w, b)
            y = Conv <strides = [2,2]> (a, p)
        }""",
        {"w": noise(8, 2, 3, 3), "b": noise(8), "p": noise(2, 8, 2, 2)},
        ["Conv"],
    ),
    "shifts between products": (
        """g (float[2,5,4] x) => (float[2,5,6] y) {
            a = MatMul (x, w)  s = Add (a, b)  c = MatMul (s, p)  y = Add (c, q)
        }""",
        {"w": noise(4, 8), "b": noise(8), "p": noise(8, 6), "q": noise(6)},
        ["MatMul", "Add"],
    ),
    "factors of a Gemm": (
        "g (float[2,4] x) => (float[2,6] y) { a = Gemm (x, w, b)  y = Gemm <transB = 1, alpha = 0.5> (a, p) }",
        {"w": noise(4, 8), "b": noise(8), "p": noise(6, 8)},
        ["Gemm"],
    ),
    "a skip over a product": (
        "g (float[2,4] x) => (float[2,4] y) { a = Gemm (x, w, b)  y = Add (x, a) }",
        {"w": noise(4, 4), "b": noise(4)},
        ["Gemm"],
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_what_is_merged(build, apply, name: str) -> None:
    text, weights, left = MERGED[name]
    assert kinds(apply(MergeLinear(), build(text, weights=weights))) == left


KEPT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "zeros at the edge meet a bias": (
        "g (float[1,4,9,9] x) => (float[1,4,9,9] y) { a = Conv (x, w, b)  y = Conv <pads = [1,1,1,1]> (a, p) }",
        {"w": noise(4, 4, 1, 1), "b": noise(4), "p": noise(4, 4, 3, 3)},
    ),
    "dearer than its parts": (
        "g (float[1,8,9,9] x) => (float[1,8,9,9] y) { a = Conv (x, w)  y = Conv (a, p) }",
        {"w": noise(2, 8, 1, 1), "p": noise(8, 2, 1, 1)},
    ),
    "read elsewhere": (
        """g (float[1,4,9,9] x) => (float[1,4,9,9] y, float[1,8,9,9] z) {
            a = Conv (x, w)  y = Conv (a, p)  z = Relu (a)
        }""",
        {"w": noise(8, 4, 1, 1), "p": noise(4, 8, 1, 1)},
    ),
    "an output itself": (
        "g (float[1,4,9,9] x) => (float[1,4,9,9] y, float[1,8,9,9] a) { a = Conv (x, w)  y = Conv (a, p) }",
        {"w": noise(8, 4, 1, 1), "p": noise(4, 8, 1, 1)},
    ),
    "something between": (
        "g (float[1,4,9,9] x) => (float[1,4,9,9] y) { a = Conv (x, w)  r = Relu (a)  y = Conv (r, p) }",
        {"w": noise(8, 4, 1, 1), "p": noise(4, 8, 1, 1)},
    ),
    "a skip of another shape": (
        "g (float[1,1,9,9] x) => (float[1,4,9,9] y) { a = Conv (x, w)  y = Add (a, x) }",
        {"w": noise(4, 1, 1, 1)},
    ),
    "transposed convolutions": (
        """g (float[1,4,9,9] x) => (float[1,4,9,9] y, float[1,4,9,9] z) {
            a = ConvTranspose (x, w)  y = Conv (a, p)  b = Conv (x, w)  z = ConvTranspose (b, p)
        }""",
        {"w": noise(4, 4, 1, 1), "p": noise(4, 4, 1, 1)},
    ),
    "normalised halves": (
        """g (float16[1,4,5,5] x) => (float16[1,4,5,5] y) {
            a = BatchNormalization (x, g, b1, m, v)  y = BatchNormalization (a, g, b1, m, v)
        }""",
        {name: value.astype(np.float16) for name, value in NORM.items()},
    ),
    "halves with statistics in single": (
        """g (float16[1,4,5,5] x) => (float16[1,4,5,5] y) {
            a = BatchNormalization (x, h, h, m, v)  y = BatchNormalization (a, h, h, m, v)
        }""",
        {"h": noise(4).astype(np.float16), "m": NORM["m"], "v": NORM["v"]},
    ),
    "halves, which would be rounded otherwise": (
        "g (float16[2,4] x) => (float16[2,2] y) { a = MatMul (x, w)  y = MatMul (a, p) }",
        {"w": noise(4, 8).astype(np.float16), "p": noise(8, 2).astype(np.float16)},
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_stays(build, unchanged, name: str) -> None:
    text, weights = KEPT[name]
    unchanged(MergeLinear(), build(text, weights=weights))


@st.composite
def kernels(draw: st.DrawFn, channels: int, filters: int) -> Kernel:
    groups = draw(st.sampled_from([n for n in (1, 2, 4) if channels % n == 0 and filters % n == 0]))
    window = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    steps = st.tuples(st.integers(1, 2), st.integers(1, 2))
    pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weight = rng.standard_normal((groups, filters // groups, channels // groups, *window))
    bias = rng.standard_normal(filters) * draw(st.integers(0, 1))
    return Kernel(weight, bias, draw(steps), draw(steps), (draw(pads), draw(pads)))


def run(x: NDArray[Any], *stages: Kernel, beside: bool = False) -> NDArray[Any]:
    """What onnxruntime makes of layers in a row, or of the sum of two."""
    nodes, weights, name = [], {}, "x"
    for number, one in enumerate(stages):
        weights[f"w{number}"] = one.weight.reshape(one.filters, *one.weight.shape[2:]).astype(np.float32)
        weights[f"b{number}"] = one.bias.astype(np.float32)
        pads = [pad[side] for side in (0, 1) for pad in one.pads]
        how = {"strides": one.strides, "dilations": one.dilations, "pads": pads, "group": one.groups}
        source, name = "x" if beside else name, f"y{number}"
        nodes.append(helper.make_node("Conv", [source, f"w{number}", f"b{number}"], [name], **how))
    if beside:
        nodes.append(helper.make_node("Add", [f"y{number}" for number in range(len(stages))], ["sum"]))
        name = "sum"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x.shape), (name, None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return np.asarray(Session(load(proto), "a test").run({"x": x})[name])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.tuples(st.integers(14, 19), st.integers(14, 19)))
def test_random_layers_in_a_row(data: st.DataObject, extents: tuple[int, int]) -> None:
    first, second = data.draw(kernels(4, 8)), data.draw(kernels(8, 4))
    joint = in_series(first, second)
    padded = any(map(any, second.pads))
    if joint is None:
        assert padded, "what pads nothing can always be merged"
        return
    x = noise(1, 4, *extents)
    np.testing.assert_allclose(run(x, joint), run(x, first, second), rtol=1e-4, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.tuples(st.integers(9, 14), st.integers(9, 14)))
def test_random_layers_side_by_side(data: st.DataObject, extents: tuple[int, int]) -> None:
    first, second = data.draw(kernels(4, 8)), data.draw(kernels(4, 8))
    joint = in_parallel(first, second)
    x = noise(1, 4, *extents)
    if joint is not None:
        np.testing.assert_allclose(run(x, joint), run(x, first, second, beside=True), rtol=1e-4, atol=1e-3)
    same = in_parallel(first, first)
    assert same is not None
    np.testing.assert_allclose(run(x, same), 2 * run(x, first), rtol=1e-4, atol=1e-3)
