"""Shrinking adds no node where a constant can say it: compilers take what exporters write, and may refuse the rest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune


def _model(body: str) -> ModelProto:
    """A convolution, and what computes a shape from its result's."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3, 4, 4] x) => (float[M, K] y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] rest = {{128}}, int64[2] both = {{0, 1}}> {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            s = Shape(c)
            {body}
            y = Gemm(f, v)
        }}"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (128, 5))):
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return proto


@pytest.mark.parametrize(
    ("body", "added"),
    [
        ("n = Slice(s, zero, one) t = Concat <axis = 0> (n, rest) f = Reshape(c, t)", 0),
        ("i = Cast <to = 6> (s) n = Slice(i, zero, one) l = Cast <to = 7> (n) t = Concat <axis = 0> (l, rest)"
         "f = Reshape(c, t)", 0),
        ("n = Gather(s, zero) t = Concat <axis = 0> (n, rest) f = Reshape(c, t)", 0),
        # What another node reads, too, is not changed for the Reshape's sake.
        ("n = Gather(s, zero) t = Concat <axis = 0> (n, rest) a = Abs(t) m = Min(a, t) f = Reshape(c, m)", 2),
    ],
)  # fmt: skip
def test_nodes_that_are_added(body: str, added: int) -> None:
    source = onnxprune.load(_model(body))
    normal = onnxprune.normalize(source)
    plan = onnxprune.plan(source, channels=0.5)
    pruned = onnxprune.apply(source, plan)
    assert pruned.weights["w"].shape[0] == 4
    assert len(pruned.proto.graph.node) - len(normal.proto.graph.node) == added
    assert onnxprune.verify(source, pruned, plan, samples=2).passed


def test_a_shape_whose_extent_counts_still_tells_it() -> None:
    """The mean over the original number of channels."""
    body = "g = Gather(s, both) d = Cast <to = 1> (g) p = ReduceProd <keepdims = 0> (d) z = Div(c, p) f = Flatten(z)"
    source = onnxprune.load(_model(body))
    plan = onnxprune.plan(source, channels=0.5)
    assert onnxprune.verify(source, onnxprune.apply(source, plan), plan).passed
