"""Constant factors and shifts go into convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.passes.fold_affine import FoldAffine


def some(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2, shape).astype(np.float32)


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_block_of_a_detector(build, apply) -> None:
    """A convolution, factor and shift, HardSwish in four nodes, factor and shift, a convolution."""
    model = build(
        """g (float[1, 3, 5, 5] x) => (float[1, 4, 5, 5] y) {
            c = Conv (x, w, b)  m = Mul (f, c)  a = Add (m, s)
            t = Add (a, three)  u = Clip (t, zero, six)  v = Mul (a, u)  h = Div (v, six)
            n = Mul (g, h)  k = Add (n, s)  y = Conv (k, w2)
        }""",
        weights={
            "w": some(8, 3, 1, 1),
            "b": some(8),
            "w2": some(4, 8, 1, 1),
            "f": some(1),
            "s": some(1, seed=1),
            "g": some(1, 8, 1, 1),
            **{name: np.array(v, np.float32) for name, v in {"zero": 0, "three": 3, "six": 6}.items()},
        },
    )
    after = apply(FoldAffine(), model)
    assert ops(after) == ["Conv", "Add", "Clip", "Mul", "Conv"]
    assert len(after.graph.node[-1].input) == 3
    assert set(after.weights) == {name for node in after.graph.node for name in node.input if name in after.weights}


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ("k = Sub (x, s)  y = Conv <pads = [1, 1, 1, 1]> (k, w)", ["Sub", "Conv"]),
        ("k = Mul (x, s)  y = Conv <pads = [1, 1, 1, 1]> (k, w)", ["Conv"]),
        ("k = Conv <pads = [1, 1, 1, 1], group = 4> (x, d)  y = Div (k, s)", ["Conv"]),
        ("k = ConvTranspose <pads = [1, 1, 1, 1], group = 2> (x, t)  y = Sub (k, s)", ["ConvTranspose"]),
        ("k = Div (s, x)  y = Conv <pads = [1, 1, 1, 1]> (k, w)", ["Div", "Conv"]),
        ("k = Mul (x, places)  y = Conv <pads = [1, 1, 1, 1]> (k, w)", ["Mul", "Conv"]),
        ("k = Conv <pads = [1, 1, 1, 1]> (x, w)  m = Mul (k, s)  y = Add (k, m)", ["Conv", "Mul", "Add"]),
        ("k = Mul (x, s)  y = Div (k, s)", ["Div"]),
        ("k = Mul (x, s)  m = Relu (k)  y = Div (m, s)", ["Mul", "Relu", "Div"]),
    ],
)
def test_what_goes_and_what_stays(build, apply, nodes: str, left: list[str]) -> None:
    model = build(
        f"g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {{ {nodes} }}",
        weights={
            "w": some(4, 4, 3, 3),
            "d": some(4, 1, 3, 3),
            "t": some(4, 2, 3, 3),
            "s": some(4, 1, 1),
            "places": some(1, 1, 5, 5),
        },
    )
    if len(left) == nodes.count("  ") + 1:
        assert FoldAffine().run(model).model is model
    else:
        assert ops(apply(FoldAffine(), model)) == left


def test_shared_weights_stay_as_they_are_for_others(build, apply) -> None:
    model = build(
        """g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {
            k = Conv (x, w)  m = Mul (k, s)  n = Conv (x, w)  y = Add (m, n)
        }""",
        weights={"w": some(4, 4, 1, 1), "s": some(4, 1, 1)},
    )
    assert ops(apply(FoldAffine(), model)) == ["Conv", "Conv", "Add"]
