"""Einsum: equations of all kinds."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.ops.einsum import parse
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, linear, reasons

COVERS = frozenset({("", "Einsum")})


@pytest.mark.parametrize(
    ("equation", "ranks", "operands", "result"),
    [
        ("ij,jk->ik", (2, 2), ("ij", "jk"), "ik"),
        (" b i j , b j k -> b i k", (3, 3), ("bij", "bjk"), "bik"),
        ("ij,jk", (2, 2), ("ij", "jk"), "ik"),
        ("...ij,jk->...ik", (4, 2), ("10ij", "jk"), "10ik"),
        ("...i,...i->...", (3, 2), ("10i", "0i"), "10"),
        ("...ba", (3,), ("0ba",), "0ab"),
        ("bB,B->b", (2, 1), ("bB", "B"), "b"),
        ("ij->", (2,), ("ij",), ""),
    ],
)
def test_equations_are_read(equation: str, ranks: tuple[int, ...], operands: tuple[str, ...], result: str) -> None:
    found = parse(equation, ranks)
    assert found.operands == tuple(tuple(o) for o in operands)
    assert found.result == tuple(result)


@pytest.mark.parametrize(("equation", "ranks"), [("ij,jk->ik", (2,)), ("ij->i", (3,)), ("ij->i", (1,))])
def test_an_equation_that_does_not_fit_is_refused(equation: str, ranks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="equation"):
        parse(equation, ranks)


@pytest.mark.parametrize("opset", [12, 17, 23])
def test_attention_written_with_einsum(opset: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", (2, 5, 6))
    wq, wk, wv, wo = (g.weight(*shape) for shape in ((6, 4, 8), (6, 4, 8), (6, 4, 8), (4, 8, 6)))
    q, k, v = (g.op("Einsum", x, w, equation="bsd,dhk->bshk") for w in (wq, wk, wv))
    scores = g.op("Softmax", g.op("Einsum", q, k, equation="bshk,bthk->bhst"), axis=-1)
    mixed = g.op("Einsum", scores, v, equation="bhst,bthk->bshk")
    g.output(g.op("Einsum", mixed, wo, equation="bshk,hkd->bsd"))
    result = certify_often(g.model(), prunable=[(w, dim) for w in (wq, wk, wv) for dim in (1, 2)])
    layers = result.analysis.layers
    assert layers[0].flops == 2 * 5 * 6 * 4 * 8
    assert layers[3].flops == 2 * 4 * 5 * 5 * 8


@pytest.mark.parametrize(
    ("equation", "weight", "out"),
    [
        ("...d,dk->...k", (7, 9), 9),
        ("bsd,kd->bsk", (9, 7), 9),
        ("bsd,kd->bks", (9, 7), 9),
        ("bsd,d->bsd", (7,), 7),
        ("bsd,d,dk->bsk", (7,), 9),
        ("bsd->bds", (), 0),
        ("bsd->bs", (), 0),
        ("bsd,bsd->bs", None, 0),
    ],
)
def test_between_layers(equation: str, weight: tuple[int, ...] | None, out: int) -> None:
    g = GraphBuilder(14)
    x = g.input("x", (2, 5, 6))
    h = linear(g, x, 6, 7)
    extra = [] if weight == () else [h] if weight is None else [g.weight(*weight, fan_in=7, base="e")]
    if equation.count(",") == 2:
        extra.append(g.weight(7, 9, fan_in=7))
    y = g.op("Einsum", h, *extra, equation=equation)
    if equation == "bsd,kd->bks":
        y = g.op("Transpose", y, perm=[0, 2, 1])
    if equation == "bsd->bds":
        y, out = g.op("Transpose", y, perm=[0, 2, 1]), 7
    g.output(linear(g, y, out, 3) if out else y)
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


def test_operands_broadcast() -> None:
    g = GraphBuilder(14)
    h = linear(g, g.input("x", (2, 5, 6)), 6, 7)
    scale = g.constant(np.full((1, 7), 0.7), dtype=np.float32)
    y = g.op("Einsum", h, scale, equation="...sd,sd->...sd")
    g.output(linear(g, y, 7, 3))
    certify_often(g.model(), prunable=[(scale, 1)])


def test_a_diagonal_is_pinned() -> None:
    g = GraphBuilder(14)
    h = linear(g, g.input("x", (2, 7, 6)), 6, 7)
    g.output(g.op("Einsum", h, equation="bii->bi"))
    analysis = onnxprune.analyze(g.model())
    assert "Einsum takes the diagonal over 'i'" in reasons(analysis, h, 2)
