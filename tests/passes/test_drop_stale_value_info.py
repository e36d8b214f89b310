from __future__ import annotations

from onnxprune.passes.drop_stale_value_info import DropStaleValueInfo
from onnxprune.passes.manager import Check

TEXT = """g (float[2] x) => (float[2] y) <float[2] t, float[2] u> {
    t = Relu(x)
    u = my.Custom(t)
    y = Relu(u)
}"""


def test_recorded_shapes_go(build, apply) -> None:
    text = TEXT.replace("my.Custom", "Neg")
    after = apply(DropStaleValueInfo(), build(text))
    assert not after.graph.value_info


def test_those_of_unknown_operators_stay(build, apply) -> None:
    after = apply(DropStaleValueInfo(), build(TEXT), Check.NONE)
    assert [value.name for value in after.graph.value_info] == ["u"]
