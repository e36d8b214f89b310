"""The protocol, the manager and the registry."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import PassError, UsageError
from onnxprune.ir.model import Model
from onnxprune.passes import GraphPass, Pass, PassResult, registry
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.pipeline import Pipeline, Step
from onnxprune.passes.registry import available_passes, find_pass

TEXT = "g (float[2] x) => (float[2] y) { t = Relu(x)  y = Add(t, w) }"
WEIGHTS = {"w": np.float32([1, 2])}


class Nothing(Pass):
    """Do nothing.

    At length.
    """

    name = "nothing"

    def run(self, model: Model) -> PassResult:
        return PassResult(model, modified=False)


class Break(Pass):
    """Change the model for the worse."""

    name = "break"

    def __init__(self, how: str = "structure") -> None:
        self.how = how

    def run(self, model: Model) -> PassResult:
        draft = model.edit()
        if self.how == "structure":
            draft.graph.node[0].input[0] = "nowhere"
        elif self.how == "runtime":
            draft.weights["w"] = draft.weights["w"].with_array(np.ones(3, np.float32))
        elif self.how == "equality":
            draft.weights["w"] = draft.weights["w"].with_array(np.float32([1, 2.01]))
        elif self.how == "output":
            draft.graph.output[0].name = "t"
        return PassResult(draft.finish(), modified=True)


class BreakOpenly(Break):
    """Change the model, and say so."""

    name = "break_openly"
    claims_equality = False


class Swap(GraphPass):
    """Replace Relu by LeakyRelu with slope 0."""

    name = "swap"

    def transform(self, graph: Any) -> bool:
        found = [node for node in graph.nodes if node.op == "Relu"]
        for node in found:
            node.op, node.attrs["alpha"] = "LeakyRelu", 0.0
        return bool(found)


def test_summary_is_the_first_line() -> None:
    assert Nothing.summary == "Do nothing."


@pytest.mark.parametrize(
    ("how", "check", "words"),
    [
        ("structure", Check.STRUCTURE, "onnx.checker refuses the result of pass break"),
        ("runtime", Check.RUNTIME, "onnxruntime does not load the result of pass break"),
        ("equality", Check.EQUALITY, "pass break claims equality but output 'y' differs by 0.01"),
        ("output", Check.EQUALITY, "pass break claims equality but lost output 'y'"),
    ],
)
def test_checks_name_the_pass(build, how, check, words) -> None:
    model = build(TEXT, weights=WEIGHTS)
    with pytest.raises(PassError, match=re.escape(words)):
        PassManager([Nothing(), Break(how)], check).run(model)
    weaker = list(Check)[list(Check).index(check) - 1]
    assert PassManager([Break(how)], weaker).run(model).modified


def test_equality_is_asked_only_where_claimed(build) -> None:
    assert PassManager([BreakOpenly("equality")], Check.EQUALITY).run(build(TEXT, weights=WEIGHTS)).modified


def test_free_dimensions(build) -> None:
    text = TEXT.replace("float[2]", "float[n]")
    model = build(text, weights={"w": np.ones(5, np.float32)})
    assert PassManager([Swap()], Check.EQUALITY, {"x": (5,)}).run(model).modified


def test_nothing_modified(build) -> None:
    model = build(TEXT, weights=WEIGHTS)
    result = PassManager([Nothing(), Nothing()], Check.EQUALITY).run(model)
    assert result == PassResult(model, modified=False)


class Next(Pass):
    """Replace an operator by another."""

    name = "next"

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after, self.calls = before, after, 0

    def run(self, model: Model) -> PassResult:
        self.calls += 1
        draft = model.edit()
        found = [node for node in draft.graph.node if node.op_type == self.before]
        for node in found:
            node.op_type = self.after
        return PassResult(draft.finish(), modified=True) if found else PassResult(model, modified=False)


def test_rounds_end_when_no_pass_has_work_left_by_others(build) -> None:
    model = build(TEXT, weights=WEIGHTS)
    steps = [Next("Elu", "Selu"), Next("Relu", "Elu"), Nothing()]
    once = PassManager(steps).run(model)
    assert [node.op_type for node in once.model.graph.node] == ["Elu", "Add"]
    steps = [Next("Elu", "Selu"), Next("Relu", "Elu"), Nothing()]
    often = PassManager(steps, rounds=9).run(model)
    assert [node.op_type for node in often.model.graph.node] == ["Selu", "Add"]
    # The first finds nothing, then something; the second has to be asked again after that, and nobody else.
    assert [step.calls for step in steps[:2]] == [2, 2]


def test_a_sequence_is_a_pass_and_its_errors_name_the_step(build) -> None:
    model = build(TEXT, weights=WEIGHTS)
    inner = PassManager([Nothing(), Break("structure")], Check.STRUCTURE)
    with pytest.raises(PassError, match=r"^onnx\.checker refuses the result of pass break"):
        PassManager([inner])(model)
    assert PassManager([PassManager([Swap()])], Check.EQUALITY)(model).modified


def test_what_passes_did_is_logged(build, caplog) -> None:
    with caplog.at_level("DEBUG", logger="onnxprune.passes"):
        PassManager([Nothing(), Swap()]).run(build(TEXT, weights=WEIGHTS))
    assert [record.getMessage() for record in caplog.records] == [
        "pass nothing: nothing to do",
        "pass swap: from 2 nodes and 1 weights to 2 nodes and 1 weights",
    ]


def test_graph_passes_keep_what_graphsurgeon_drops(build, apply) -> None:
    draft = build(TEXT, weights=WEIGHTS).edit()
    draft.skeleton.metadata_props.add(key="names", value="{}")
    model = draft.finish()
    after = apply(Swap(), model)
    assert after.skeleton.metadata_props == model.skeleton.metadata_props
    assert after.skeleton.ir_version == model.skeleton.ir_version
    assert after.weights["w"] is model.weights["w"]


def test_conditions(build) -> None:
    class Picky(Nothing):
        """Take nothing."""

        name = "picky"

        def precondition(self, model: Model) -> None:
            raise PassError("I want another model")

    class Sorry(Break):
        """Regret."""

        name = "sorry"

        def postcondition(self, model: Model) -> None:
            raise PassError("this went wrong")

    for step, words in ((Picky(), "pass picky: I want"), (Sorry(), "pass sorry: this went")):
        with pytest.raises(PassError, match=words):
            PassManager([step]).run(build(TEXT, weights=WEIGHTS))


def test_own_passes_are_found() -> None:
    passes = available_passes()
    assert list(passes) == sorted(passes)
    assert {
        "inline_functions",
        "constants_to_initializers",
        "drop_initializer_inputs",
        "fold_constants",
    } <= set(passes)
    assert {"eliminate_identity", "unshare_vectors", "drop_stale_value_info", "remove_unused"} <= set(passes)
    assert all(cls.summary.endswith(".") or cls.summary for cls in passes.values())
    assert [step.name for step in Pipeline.parse("remove_unused, fold_constants").make()] == [
        "remove_unused",
        "fold_constants",
    ]


def test_the_pass_that_applies_plans_is_found_though_it_lives_elsewhere() -> None:
    cls = available_passes()["shrink"]
    assert cls.__module__ == "onnxprune.pruning.shrinking"
    with pytest.raises(UsageError, match="pass 'shrink' wants plan, which text cannot give"):
        Step("shrink").make()


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(PassError, match="no pass 'fold_constant'; did you mean fold_constants"):
        find_pass("fold_constant")
    with pytest.raises(PassError, match="no pass 'xyz'; there are constants_to_initializers,"):
        find_pass("xyz")


def test_a_pass_that_wants_arguments(monkeypatch) -> None:
    class Wanting(Nothing):
        """Do nothing with something."""

        name = "wanting"

        def __init__(self, plan: str, how: str = "") -> None:
            self.plan = plan

    monkeypatch.setattr(registry, "available_passes", lambda: {"wanting": Wanting})
    with pytest.raises(UsageError, match=r"pass 'wanting' wants plan: write wanting\{plan=…\}"):
        Step("wanting").make()
    assert Step("wanting", {"plan": "x"}).make().plan == "x"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"{__name__}:Missing", "cannot be loaded"),
        ("collections:OrderedDict", "not a concrete subclass"),
        ("onnxprune.passes:GraphPass", "not a concrete subclass"),
    ],
)
def test_bad_entry_points(monkeypatch, value, words) -> None:
    entry = EntryPoint("theirs", value, registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(PassError, match=words):
        available_passes()


def test_passes_of_other_packages(monkeypatch) -> None:
    class Theirs(Nothing):
        """From elsewhere."""

        name = "theirs"

    class Clash(Nothing):
        """Of a name that is taken."""

        name = "fold_constants"

    class Entry:
        name = value = "x"

        def __init__(self, cls: type[Pass]) -> None:
            self.load = lambda: cls

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry(Theirs)])
    assert available_passes()["theirs"] is Theirs
    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry(Clash)])
    with pytest.raises(PassError, match="two passes are named 'fold_constants'"):
        available_passes()
