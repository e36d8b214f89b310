"""Plans are data that people edit: whatever does not fit the model is refused in words that help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from onnx import ModelProto

import onnxprune
from onnxprune import Plan, PlanError
from tests.helpers import GraphBuilder

Removed = dict[str, dict[int, tuple[int, ...]]]


@pytest.fixture
def model() -> ModelProto:
    """conv → relu → grouped conv (two groups) → conv → output; the weights are called first_, middle_ and last_."""
    g = GraphBuilder(opset=17)
    g.input("x", [1, 3, 5, 5])
    first = g.op("Relu", g.op("Conv", "x", g.weight(8, 3, 1, 1, base="first")))
    middle = g.op("Conv", first, g.weight(6, 4, 1, 1, base="middle"), group=2)
    last = g.op("Conv", middle, g.weight(4, 6, 1, 1, base="last"))
    g.output(last)
    return g.model()


def _plan(model: ModelProto) -> Removed:
    """A good plan: one channel of each group's half of the first layer and of the middle one."""
    plan = onnxprune.plan(model, channels=0.4, criterion="l2")
    removed = {tensor: dict(axes) for tensor, axes in plan.removed.items()}
    assert {tensor.rsplit("_", 1)[0] for tensor in removed} >= {"first", "middle", "last"}
    return removed


def _named(removed: Mapping[str, object], prefix: str) -> str:
    return next(name for name in removed if name.startswith(prefix))


def test_a_plan_survives_its_file(model: ModelProto, tmp_path: Path) -> None:
    """What the editor starts from is accepted."""
    path = tmp_path / "plan.json"
    Plan(_plan(model)).save(path)
    assert onnxprune.verify(model, onnxprune.apply(model, Plan.load(path)), Plan.load(path)).passed


def test_a_plan_of_nothing_changes_nothing(model: ModelProto) -> None:
    """An empty plan is a plan."""
    assert (
        onnxprune.apply(model, Plan({})).proto.graph.initializer == onnxprune.normalize(model).proto.graph.initializer
    )


def _drop_tensor(removed: Removed) -> None:
    del removed[_named(removed, "last")]


def _drop_axis(removed: Removed) -> None:
    del removed[_named(removed, "middle")][0]


def _drop_position(removed: Removed) -> None:
    last = removed[_named(removed, "last")]
    last[1] = last[1][1:]


def _add_position(removed: Removed) -> None:
    last = removed[_named(removed, "last")]
    last[1] = tuple(sorted({*last[1], *(set(range(6)) - set(last[1]))}))[: len(last[1]) + 1]


def _pinned_position(removed: Removed) -> None:
    removed[_named(removed, "last")][0] = (1,)


def _unknown_tensor(removed: Removed) -> None:
    removed["conv9.weight"] = {0: (0,)}


def _unknown_dim(removed: Removed) -> None:
    removed[_named(removed, "first")][4] = (0,)


def _negative_dim(removed: Removed) -> None:
    removed[_named(removed, "first")][-1] = (0,)


def _beyond_the_end(removed: Removed) -> None:
    removed[_named(removed, "first")][0] = (0, 8)


def _before_the_start(removed: Removed) -> None:
    removed[_named(removed, "first")][0] = (-1, 0)


def _descending(removed: Removed) -> None:
    first = removed[_named(removed, "first")]
    first[0] = first[0][::-1]


def _repeated(removed: Removed) -> None:
    first = removed[_named(removed, "first")]
    first[0] = (first[0][0], *first[0])


def _kernel_positions(removed: Removed) -> None:
    removed["x"] = {2: (0,)}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_drop_tensor, ("inconsistent", "last_", "coupled")),
        (_drop_axis, ("inconsistent", "middle_", "coupled")),
        (_drop_position, ("inconsistent", "last_", "coupled")),
        (_add_position, ("position",)),
        (_pinned_position, ("must stay", "graph output")),
        (_unknown_tensor, ("conv9.weight", "another model")),
        (_unknown_dim, ("[4]", "4 dimensions")),
        (_negative_dim, ("[-1]", "dimensions")),
        (_beyond_the_end, ("position 8", "8 positions", "another model")),
        (_before_the_start, ("position -1", "8 positions")),
        (_descending, ("first_", "ascending")),
        (_repeated, ("first_", "once")),
        (_kernel_positions, ("x[2]", "no layer produces")),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_an_edited_plan_is_refused_in_words(
    model: ModelProto, edit: Callable[[Removed], None], words: tuple[str, ...]
) -> None:
    """One PlanError that names the tensor and says what is wrong with it; nothing is applied."""
    removed = _plan(model)
    edit(removed)
    with pytest.raises(PlanError) as refusal:
        onnxprune.apply(model, Plan(removed))
    message = str(refusal.value)
    assert all(word in message for word in words), message


def _whole_class(model: ModelProto, prefix: str) -> Removed:
    """A plan that removes every position of one weight's rows, wherever they go."""
    analysis = onnxprune.analyze(model)
    axes, coupling = analysis.coupling.axes, analysis.coupling
    weight = _named(dict.fromkeys(analysis.model.weights), prefix)
    owner = coupling.class_of[axes.id(weight, 0)]
    positions = tuple(range(int(coupling.extents[owner])))
    removed: Removed = {}
    for axis in coupling.members[owner]:
        tensor, dim = axes.axis(axis)
        removed.setdefault(tensor, {})[dim] = positions
    return removed


def test_an_axis_keeps_a_position(model: ModelProto) -> None:
    """Removing all of a layer is no pruning."""
    with pytest.raises(PlanError, match=r"removes every position.*at least one has to stay"):
        onnxprune.apply(model, Plan(_whole_class(model, "middle")))


def test_groups_lose_equally_many(model: ModelProto) -> None:
    """A grouped convolution cannot have groups of different sizes."""
    removed = {tensor: dict.fromkeys(axes, (0,)) for tensor, axes in _whole_class(model, "middle").items()}
    with pytest.raises(PlanError, match=r"equally many|coupled"):
        onnxprune.apply(model, Plan(removed))


def test_a_plan_of_another_model_is_refused(model: ModelProto) -> None:
    """Names that happen to exist are not enough: extents and couplings have to fit."""
    g = GraphBuilder(opset=17)
    g.input("x", [1, 3, 5, 5])
    first = g.op("Conv", "x", g.weight(4, 3, 1, 1, base="first"))
    g.output(g.op("Conv", first, g.weight(4, 4, 1, 1, base="last")))
    with pytest.raises(PlanError, match="another model"):
        onnxprune.apply(g.model(), Plan(_plan(model)))
