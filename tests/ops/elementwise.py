"""Cases of operators that compute every element from the elements at its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.helpers import GraphBuilder
from tests.ops.case import (
    BATCH,
    CHANNELS,
    HEIGHT,
    WIDTH,
    Build,
    Case,
    as_float,
    feature_map,
    fixed,
    positive,
    read_last,
    read_map,
    scalar,
    sequence,
    tied,
    unit,
)  # fmt: skip

_ANYWHERE = (
    *("Abs", "Atan", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Swish", "Tanh"),
)
_ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {"Celu": {"alpha": 0.7}, "Shrink": {"lambd": 0.2, "bias": 0.1}}
_TAMED = {
    "Acos": unit, "Asin": unit, "Asinh": unit, "Atanh": unit, "Cosh": unit, "Sinh": unit, "Tan": unit,
    "Log": positive, "Reciprocal": positive, "Sqrt": positive,
}  # fmt: skip
#: Operators that first appeared after opset 7; the schema history starts there.
_SINCE = {"Swish": 24}


def _unary(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x = feature_map(g)
        if op_type in _TAMED:
            x = _TAMED[op_type](g, x)
        elif op_type == "Acosh":
            x = positive(g, x, 1.5)
        elif op_type in ("Ceil", "Floor", "Round"):
            x = g.op("Mul", x, scalar(g, 3.0))
        read_map(g, g.op(op_type, x, **_ATTRIBUTES.get(op_type, {})))

    return build


def _clip(g: GraphBuilder) -> None:
    x = feature_map(g)
    if g.opset < 11:
        read_map(g, g.op("Clip", x, min=-0.5, max=0.7))
    else:
        read_map(g, g.op("Clip", x, scalar(g, -0.5), scalar(g, 0.7)))


def _half_clip(g: GraphBuilder) -> None:
    read_map(g, g.op("Clip", feature_map(g), "", scalar(g, 0.7)))


def _dropout(g: GraphBuilder) -> None:
    read_map(g, g.op("Dropout", feature_map(g)))


def _dropout_with_mask(g: GraphBuilder) -> None:
    y, mask = g.ops("Dropout", feature_map(g), outputs=2)
    if g.opset >= 10:
        y = g.op("Mul", y, g.op("Add", as_float(g, mask), scalar(g, 1.0)))
    read_map(g, y)


def _dropout_with_unread_mask(g: GraphBuilder) -> None:
    y, _ = g.ops("Dropout", feature_map(g), outputs=2)
    read_map(g, y)


def _cast(g: GraphBuilder) -> None:
    x = g.op("Cast", feature_map(g), to=TensorProto.DOUBLE)
    read_map(g, as_float(g, x))


def _cast_like(g: GraphBuilder) -> None:
    x = feature_map(g)
    like = g.op("Cast", feature_map(g), to=TensorProto.INT32)
    whole = g.op("CastLike", g.op("Mul", x, scalar(g, 4.0)), like)
    g.output(g.op("Conv", as_float(g, whole), g.weight(4, CHANNELS, 1, 1)))
    read_map(g, as_float(g, like))


def _predicate(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x = feature_map(g)
        odd = g.op("Log", g.op("Relu", x)) if op_type == "IsInf" else g.op("Sqrt", x)
        read_map(g, g.op("Add", as_float(g, g.op(op_type, odd)), x))

    return build


def _not(g: GraphBuilder) -> None:
    x = feature_map(g)
    read_map(g, g.op("Mul", x, as_float(g, g.op("Not", g.op("Less", x, scalar(g, 0.0))))))


def _bernoulli(g: GraphBuilder) -> None:
    # Probabilities 0 and 1 leave nothing to chance.
    read_map(g, g.op("Bernoulli", as_float(g, g.op("Greater", feature_map(g), scalar(g, 0.0)))))


def _integers(g: GraphBuilder, x: str) -> str:
    return g.op("Cast", g.op("Mul", g.op("Abs", x), scalar(g, 20.0)), to=TensorProto.UINT32)


def _bitwise_not(g: GraphBuilder) -> None:
    small = g.op("Cast", feature_map(g), to=TensorProto.INT32)
    read_map(g, as_float(g, g.op("BitwiseNot", small)))


def _bitwise(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        a, b = _integers(g, feature_map(g)), _integers(g, feature_map(g))
        mixed = g.op(op_type, a, b)
        picked = g.op(op_type, mixed, g.constant(np.arange(CHANNELS).reshape(-1, 1, 1), dtype=np.uint32))
        read_map(g, as_float(g, picked))

    return build


def _bit_shift(g: GraphBuilder) -> None:
    shift = g.constant(np.arange(CHANNELS).reshape(-1, 1, 1) % 3, dtype=np.uint32)
    read_map(g, as_float(g, g.op("BitShift", _integers(g, feature_map(g)), shift, direction="RIGHT")))


def _two_maps(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        a, b = feature_map(g), feature_map(g)
        if op_type in ("Div", "Pow"):
            a, b = positive(g, a), positive(g, b)
        read_map(g, g.op(op_type, a, b))

    return build


def _with_constant(op_type: str, *shape: int) -> Build:
    def build(g: GraphBuilder) -> None:
        a = positive(g, feature_map(g)) if op_type == "Pow" else feature_map(g)
        read_map(g, g.op(op_type, a, g.vector(*shape, positive=True)))

    return build


def _constant_first(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x = positive(g, feature_map(g)) if op_type in ("Div", "Pow") else feature_map(g)
        read_map(g, g.op(op_type, g.vector(CHANNELS, 1, 1, positive=True), x))

    return build


def _gated(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x, y = feature_map(g), feature_map(g)
        gate = g.op("GlobalAveragePool", y)
        read_map(g, g.op(op_type, gate, positive(g, x)))

    return build


def _comparison(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        a, b = feature_map(g), feature_map(g)
        if op_type == "Equal":
            a, b = (g.op("Cast", t, to=TensorProto.INT32) for t in (a, b))
        met = as_float(g, g.op(op_type, a, b))
        read_map(g, met)

    return build


def _logical(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        a, b = feature_map(g), feature_map(g)
        zero = scalar(g, 0.0)
        read_map(g, as_float(g, g.op(op_type, g.op("Greater", a, zero), g.op("Less", b, zero))))

    return build


def _many(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        operands = [feature_map(g), feature_map(g), feature_map(g)]
        if g.opset >= 8:
            operands.append(g.vector(CHANNELS, 1, 1))
        read_map(g, g.op(op_type, *operands))

    return build


def _mod(g: GraphBuilder) -> None:
    read_map(g, g.op("Mod", feature_map(g), g.vector(CHANNELS, 1, 1, positive=True), fmod=1))


def _prelu(*shape: int) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.op("PRelu", feature_map(g), g.vector(*shape)))

    return build


def _where(g: GraphBuilder) -> None:
    a, b = feature_map(g), feature_map(g)
    read_map(g, g.op("Where", g.op("Greater", a, scalar(g, 0.0)), b, g.vector(CHANNELS, 1, 1)))


def _where_constant_condition(g: GraphBuilder) -> None:
    condition = g.constant(np.arange(CHANNELS).reshape(-1, 1, 1) % 2, dtype=np.bool_)
    read_map(g, g.op("Where", condition, feature_map(g), scalar(g, 0.25)))


def _graph_input_added(g: GraphBuilder) -> None:
    x = feature_map(g)
    other = g.input("skip", [BATCH, CHANNELS, HEIGHT, WIDTH])
    read_map(g, g.op("Add", x, other))


def _single_channel_added(g: GraphBuilder) -> None:
    x, gate = feature_map(g), feature_map(g, 1)
    read_map(g, g.op("Add", gate, x))


def _tokens(g: GraphBuilder) -> None:
    read_last(g, g.op("Mul", sequence(g), g.vector(1, CHANNELS)))


CASES: tuple[Case, ...] = (
    *(tied(f"{op} of a map", op, _unary(op), _SINCE.get(op, 7), 24) for op in (*_ANYWHERE, *_TAMED, *_ATTRIBUTES)),
    *(tied(f"{op} of a map", op, _unary(op)) for op in ("Acosh", "Round", "ThresholdedRelu")),
    tied("Clip with both bounds", "Clip", _clip),
    tied("Clip with one bound", "Clip", _half_clip, since=11),
    tied("Dropout", "Dropout", _dropout),
    tied("Dropout whose mask is read", "Dropout", _dropout_with_mask),
    tied("Dropout whose mask nobody reads", "Dropout", _dropout_with_unread_mask),
    tied("Cast there and back", "Cast", _cast),
    tied("CastLike", "CastLike", _cast_like),
    tied("IsInf", "IsInf", _predicate("IsInf")),
    tied("IsNaN", "IsNaN", _predicate("IsNaN")),
    tied("Not", "Not", _not, since=9),
    tied("Bernoulli", "Bernoulli", _bernoulli, until=21),
    tied("BitwiseNot", "BitwiseNot", _bitwise_not),
    *(tied(op, op, _bitwise(op)) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    tied("BitShift", "BitShift", _bit_shift),
    *(tied(f"{op} of two maps", op, _two_maps(op)) for op in ("Add", "Sub", "Mul", "Div", "Pow")),
    *(tied(f"{op} with a constant per channel", op, _with_constant(op, CHANNELS, 1, 1))
      for op in ("Add", "Sub", "Mul", "Div", "Pow")),
    *(tied(f"{op} with a constant {shape}", op, _with_constant(op, *shape))
      for op in ("Add", "Mul")
      for shape in ((), (1,), (WIDTH,), (1, CHANNELS, 1, 1), (BATCH, CHANNELS, HEIGHT, WIDTH), (HEIGHT, 1))),
    *(tied(f"{op} of a constant and a map", op, _constant_first(op)) for op in ("Add", "Sub", "Mul", "Div", "Pow")),
    *(tied(f"{op} of a pooled gate and a map", op, _gated(op)) for op in ("Add", "Mul", "Div")),
    *(tied(op, op, _comparison(op)) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(tied(op, op, _logical(op), since=9) for op in ("And", "Or", "Xor")),
    *(tied(op, op, _logical(op), until=8) for op in ("And", "Or", "Xor")),
    *(tied(f"{op} of several", op, _many(op)) for op in ("Max", "Mean", "Min", "Sum")),
    tied("Mod", "Mod", _mod),
    tied("PRelu with a slope per channel", "PRelu", _prelu(CHANNELS, 1, 1)),
    tied("PRelu with one slope", "PRelu", _prelu(1)),
    tied("Where with a computed condition", "Where", _where),
    tied("Where with a constant condition", "Where", _where_constant_condition),
    tied("a single channel added to a map", "Add", _single_channel_added),
    tied("constants along the last dimension", "Mul", _tokens),
    fixed("a graph input added", "Add", "graph input", _graph_input_added),
)  # fmt: skip
