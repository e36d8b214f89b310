from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.passes.remove_unused import RemoveUnused
from onnxprune.passes.resolve_sequences import ResolveSequences
from tests.passes.conftest import Apply, Build

FIRST, LAST = np.int64(0), np.int64(-1)


def ops(model: onnxprune.Model) -> list[str]:
    """What is left once nobody reads the sequences any more."""
    return [node.op_type for node in RemoveUnused()(model).model.graph.node]


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_lists_that_grow(build: Build, apply: Apply, opset: int) -> None:
    model = build(
        """g (float[2, 3] x) => (float[8, 3] y) {
            e = SequenceEmpty ()
            a = Relu(x)
            b = Neg(x)
            c = Abs(x)
            s = SequenceInsert(e, a)
            t = SequenceInsert(s, b)
            u = SequenceInsert(t, c, first)
            v = SequenceInsert(u, c, last)
            y = ConcatFromSequence <axis = 0> (v)
        }""",
        opset=opset,
        weights={"first": FIRST, "last": LAST},
    )
    after = apply(ResolveSequences(), model)
    assert ops(after) == ["Relu", "Neg", "Abs", "Concat"]
    assert list(after.graph.node[-1].input) == ["c", "a", "c", "b"]


@pytest.mark.parametrize("opset", [11, 17])
def test_new_axes_and_erased_elements(build: Build, apply: Apply, opset: int) -> None:
    model = build(
        """g (float[2, 3] x) => (float[2, 2, 3] y, int64 n, float[2, 3] z) {
            a = Relu(x)
            b = Neg(x)
            s = SequenceConstruct(a, b, a)
            t = SequenceErase(s, first)
            u = SequenceErase(s)
            y = ConcatFromSequence <axis = 0, new_axis = 1> (t)
            n = SequenceLength(u)
            z = SequenceAt(u, last)
        }""",
        opset=opset,
        weights={"first": FIRST, "last": LAST},
    )
    after = apply(ResolveSequences(), model)
    assert ops(after) == ["Relu", "Neg", "Unsqueeze", "Unsqueeze", "Concat", "Constant", "Identity"]
    assert list(after.graph.node[-1].input) == ["b"]


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize(
    ("split", "attributes", "shape", "wanted"),
    [
        ("", "axis = 1", "2, 1", {"Split", "Identity"}),
        ("", "axis = -1, keepdims = 0", "2", {"Split", "Squeeze", "Identity"}),
        (", two", "axis = 1", "2, 1", {"Split", "Identity"}),
        (", sizes", "axis = 1, keepdims = 0", "2, 4", {"Split", "Identity"}),
    ],
)
def test_split_sequences(
    build: Build, apply: Apply, opset: int, split: str, attributes: str, shape: str, wanted: set[str]
) -> None:
    model = build(
        f"""g (float[2, 5] x) => (float[{shape}] y) {{
            s = SplitToSequence <{attributes}> (x{split})
            y = SequenceAt(s, last)
        }}""",
        opset=opset,
        weights={"last": LAST, "two": np.int64(2), "sizes": np.int64([1, 4])},
    )
    assert set(ops(apply(ResolveSequences(), model))) == wanted


def test_sequences_that_stay(build: Build, unchanged: Apply) -> None:
    """Positions from data, extents of the input, and what If returns are not known."""
    for body in (
        "s = SplitToSequence(x)  y = SequenceAt(s, first)",
        "s = SequenceConstruct(x, x)  y = SequenceAt(s, i)",
        "s = SequenceConstruct(x, x)  t = SequenceInsert(s, x, i)  y = SequenceAt(t, first)",
        "s = SequenceConstruct(x, x)  t = SequenceErase(s, i)  y = SequenceAt(t, first)",
    ):
        unchanged(
            ResolveSequences(), build(f"g (float[N] x, int64 i) => (float y) {{ {body} }}", weights={"first": FIRST})
        )


def test_a_list_that_is_read_at_a_computed_place_keeps_its_makers(build: Build, apply: Apply) -> None:
    model = build(
        """g (float[3, 2] x, int64 i) => (float[1, 2] y, float[1, 2] z) {
            s = SplitToSequence(x)
            y = SequenceAt(s, first)
            z = SequenceAt(s, i)
        }""",
        weights={"first": FIRST},
    )
    assert ops(apply(ResolveSequences(), model)) == ["SplitToSequence", "Split", "Identity", "SequenceAt"]


def test_optionals(build: Build, apply: Apply) -> None:
    model = build(
        """g (float[2] x) => (float[2] y, bool full, bool plain, float[2] z, bool none) {
            a = Relu(x)
            s = SequenceConstruct(a, x)
            o = Optional(s)
            t = OptionalGetElement(o)
            y = SequenceAt(t, first)
            full = OptionalHasElement(o)
            plain = OptionalHasElement(a)
            z = OptionalGetElement(a)
            none = OptionalHasElement()
        }""",
        opset=18,
        weights={"first": FIRST},
    )
    after = apply(ResolveSequences(), model)
    assert ops(after) == ["Relu", "Identity", "Constant", "Constant", "Identity", "Constant"]
