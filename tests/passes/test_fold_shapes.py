"""Shape arithmetic is folded where the input shapes do not matter, and only there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass
from onnxprune.passes.fold_shapes import FoldShapes
from tests.passes.conftest import Apply, Build

_CHANNELS = """
    g (float[n, 8, h] x) => (float[a, b, c] y) {
        s = Shape(x)
        d = Gather(s, at)
        b = %s(d, limit)
        f = Cast<to = 1>(b)
        y = Mul(x, f)
    }
"""


def test_what_follows_from_fixed_extents_is_folded(build: Build, apply: Apply) -> None:
    weights = {"at": np.int64(1), "limit": np.int64(500)}
    model = apply(FoldShapes(), build(_CHANNELS % "Greater", weights=weights))
    assert [node.op_type for node in model.graph.node] == ["Shape", "Mul"]  # another pass removes what nobody reads


def test_a_comparison_with_an_open_extent_stays(build: Build, unchanged: Callable[[Pass, Model], None]) -> None:
    """Both extents that are tried are below 500; that of an input need not be."""
    for comparison in ("Greater", "Less", "Equal"):
        weights = {"at": np.int64(2), "limit": np.int64(500)}
        unchanged(FoldShapes(), build(_CHANNELS % comparison, weights=weights))
