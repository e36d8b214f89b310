"""Names and numbers of open dimensions, without a look at the nodes."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ShapeError
from onnxprune.ir.extents import Binding, Openings, Origin, Wishes
from onnxprune.ir.model import load


def _model(**inputs: list[int | str | None]) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None) for name in inputs]
    return helper.make_model(helper.make_graph(nodes, "test", declared, outputs))


def _bound(model: onnx.ModelProto, wishes: Wishes | None = None, **given: tuple[int, ...]) -> Binding:
    return Openings.of(load(model), given).bind(wishes or Wishes())


def test_usual_extents() -> None:
    model = _model(image=["n", 3, "h", "w"], tokens=["n", "length"], one=["k"])
    assert _bound(model).shapes == {"image": (1, 3, 224, 224), "tokens": (1, 64), "one": (1,)}


def test_equal_names_are_one_dimension_but_placeholders_are_not() -> None:
    model = _model(a=["n", "t"], b=["n", "t"], c=["-1", "-1"], d=["?", "None"])
    bound = _bound(model, a=(3, 17))
    assert bound.shapes == {"a": (3, 17), "b": (3, 17), "c": (1, 64), "d": (1, 64)}
    assert len({one.symbol for one in bound.open}) == 6
    assert bound.assumed == ("c", "d")


@pytest.mark.parametrize(
    ("name", "extent"),
    [
        ("past + new", 72),
        ("past+new+1", 73),
        ("2*new", 16),
        ("past // 2", 32),
        ("past // 0", 64),
        ("past.__class__", 64),
    ],
)
def test_names_that_are_sums(name: str, extent: int) -> None:
    model = _model(mask=["n", name], past=["n", "past"], new=["n", "new"])
    bound = _bound(model, new=(1, 8))
    assert bound.shapes["mask"] == (1, extent)


def test_what_is_given_counts_even_against_names_and_wishes() -> None:
    model = _model(a=["n", "t"], b=["n", "t"])
    wishes = Wishes({("a", 1): (5, "Conv 'c'")})
    bound = _bound(model, wishes, a=(2, 7), b=(3, 9))
    assert bound.shapes == {"a": (2, 7), "b": (3, 9)}
    assert {one.origin for one in bound.open} == {Origin.GIVEN}


def test_wishes_tell_the_node() -> None:
    model = _model(a=["n", "c"], b=["m", "d"])
    bound = _bound(model, Wishes({("a", 1): (5, "Conv 'c'")}, [(("a", 0), ("b", 1), "Add 'x'")]))
    assert bound.shapes == {"a": (1, 5), "b": (1, 1)}
    found = {(one.tensor, one.dim): (one.origin, one.why) for one in bound.open}
    assert found["a", 1] == (Origin.ASKED, "Conv 'c'")
    assert found["b", 1] == (Origin.ASSUMED, "Add 'x'")
    assert ("a", 1) not in bound.free


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"z": (1, 2)}, "no input 'z'"),
        ({"a": (1,)}, "2 dimensions"),
        ({"a": (1, 3)}, "extent 4"),
        ({"a": (0, 4)}, "below 1"),
    ],
)
def test_shapes_that_contradict_the_model(given: dict[str, tuple[int, ...]], fault: str) -> None:
    with pytest.raises(ShapeError, match=fault):
        _bound(_model(a=["n", 4]), **given)
