"""Pipelines as text and as files, what looks on, and what reproduces a failure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import PassError, UsageError
from onnxprune.ir.model import Model
from onnxprune.passes import registry
from onnxprune.passes.base import Pass, PassResult
from onnxprune.passes.manager import Check
from onnxprune.passes.pipeline import Pipeline, Step, options_of
from onnxprune.passes.reproducer import reduced
from tests.cli.support import RESIDUAL, VGG, done, done_json, refused
from tests.latency.networks import chain


class Picky(Pass):
    """Refuse models with a Relu behind a Conv."""

    name = "picky"

    def __init__(
        self, words: Sequence[str] = (), how: Literal["a", "b"] = "a", share: float = 0.5, open: bool = False
    ) -> None:
        """Args:
        words: some
            words.
        how: a or b.
        """
        self.given = (words, how, share, open)

    def run(self, model: Model) -> PassResult:
        kinds = [node.op_type for node in model.graph.node]
        if ("Conv", "Relu") in pairwise(kinds):
            raise PassError("a Relu behind a Conv")
        return PassResult(model, modified=False)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**registry.available_passes(), "picky": Picky}
    monkeypatch.setattr(registry, "available_passes", lambda: found)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("normalize", [("normalize", {})]),
        (" a ,b{}", [("a", {}), ("b", {})]),
        ("a{x=1 y=-2.5 z=1e3}", [("a", {"x": 1, "y": -2.5, "z": 1000.0})]),
        ("a{x=true, y=false, z=word-1/*.npz?size=3}", None),
        ("a{x=true, y=false, z=word-1/*.npz}", [("a", {"x": True, "y": False, "z": "word-1/*.npz"})]),
        ("a{x='two words' y=\"1\"}", [("a", {"x": "two words", "y": "1"})]),
        ("a{x=[] y=[1, two 'three, four']}", [("a", {"x": [], "y": [1, "two", "three, four"]})]),
    ],
)
def test_text_is_read_and_written(text: str, steps: list[tuple[str, dict[str, Any]]] | None) -> None:
    if steps is None:
        with pytest.raises(UsageError, match="written name=value"):
            Pipeline.parse(text)
        return
    pipeline = Pipeline.parse(text)
    assert [(step.name, dict(step.options)) for step in pipeline.steps] == steps
    assert [type(v) for s in pipeline.steps for v in s.options.values()] == [
        type(v) for _, options in steps for v in options.values()
    ]
    assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no pass"),
        ("a b", "a comma before 'b', behind pass 'a'"),
        (",a", "the name of a pass before ','"),
        ("a{x}", "written name=value, not 'x'"),
        ("a{x=}", "option 'x' of pass 'a' has no value before '}'"),
        ("a{x=[1", "list of option 'x' of pass 'a' is not closed"),
        ("a{x=1", "written name=value, not 'the end'"),
        ("a{x=1 x=2}", "given option 'x' twice"),
        ("a{x='1}", "a quote is not closed"),
    ],
)
def test_text_that_is_no_pipeline(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pipeline.parse(text)


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[[pass]]\nname = "normalize"\n[[pass]]\nname = "prune"\nreduce = 0.5\nexclude = ["a", "b"]\n')
    assert Pipeline.load(path) == Pipeline.parse("normalize, prune{reduce=0.5 exclude=[a, b]}")
    for text, words in (
        ("x = ", "is no pipeline"),
        ("[[pass]]\nreduce=1", "each with a name"),
        ("y=1", r"\[\[pass\]\]"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=words):
            Pipeline.load(path)
    path.write_text('y = 1\n[[pass]]\nname = "normalize"\n')
    with pytest.raises(UsageError, match="it also holds y"):
        Pipeline.load(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wrods": ["a"]}, "pass 'picky' has no option 'wrods'; did you mean words?"),
        ({"words": "a"}, "option 'words' of pass 'picky' takes Sequence\\[str\\], not a"),
        ({"words": [1]}, "option 'words'"),
        ({"how": "c"}, "takes Literal\\['a', 'b'\\], not c"),
        ({"share": "half"}, "option 'share' of pass 'picky' takes float, not half"),
        ({"share": True}, "option 'share'"),
        ({"open": 1}, "option 'open' of pass 'picky' takes bool, not 1"),
    ],
)
def test_options_are_typed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Step("picky", options).make()


def test_what_fits_is_given() -> None:
    (made,) = Pipeline.parse("picky{words=[a] how=b share=1 open=true}").make()
    assert isinstance(made, Picky)
    assert made.given == (["a"], "b", 1, True)
    words, *_ = options_of(Picky)
    assert (words.name, words.required, words.help) == ("words", False, "some words.")


def test_pruning_is_a_pass_like_others() -> None:
    model = chain(96, 128, 64, 5)
    made = Pipeline.parse("normalize, prune{mode=flops reduce=0.4 seed=1}").run(model)
    assert made.proto == onnxprune.compress(model, mode="flops", reduce=0.4, seed=1).proto
    with pytest.raises(UsageError, match="pass 'prune': mode 'flop' is not known"):
        Pipeline.parse("prune{mode=flop reduce=0.5}").make()
    with pytest.raises(UsageError, match="pass 'prune': give a budget"):
        Pipeline.parse("prune").make()


def test_every_option_of_the_main_job_is_one_of_the_pass() -> None:
    named = {option.name: option for option in options_of(registry.available_passes()["prune"])}
    assert {"mode", "reduce", "criterion", "calibration", "compensate", "certify"} <= named.keys()
    assert not {"registry", "latency", "sensitivity"} & named.keys()
    assert named["reduce"].help == "Fraction of it to remove."


def test_the_command_line_runs_them_and_tells_what_was_asked(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    given = ("run", VGG, "-o", output, "--pipeline")
    said = done(*given, "normalize, prune{reduce=0.5}", "--time-passes", "--statistics", "--verify-each")
    assert "normalize" in said
    assert " ms " in said
    assert "nodes," in said
    assert len(onnx.load(output).graph.node) == 17
    said = done(*given, "remove_unused, prune{reduce=0.5}", "--print-ir-after", "prune", "--force")
    assert "// after prune" in said
    assert "// after remove_unused" not in said
    assert "Conv" in said
    assert "has no pass prun" in refused(2, *given, "prune{reduce=0.5}", "--print-ir-after", "prun", "--force")
    path = tmp_path / "p.toml"
    path.write_text('[[pass]]\nname = "prune"\nreduce = 0.5\n')
    assert done_json(*given, path, "--force")["passes"] == ["prune"]


def test_options_of_a_pass_are_shown() -> None:
    data = done_json("passes", "reinitialize")
    assert data["options"] == [
        {
            "name": "seed",
            "type": "int",
            "default": 0,
            "required": False,
            "help": "decides all values, each weight's also by its name, so that other layers do not matter.",
        }
    ]
    assert "mode" in done("passes", "prune")
    assert "did you mean prune" in refused(2, "passes", "prun")


def test_what_fails_is_cut_down() -> None:
    small = reduced(onnxprune.load(RESIDUAL), Picky())
    assert [node.op_type for node in small.graph.node] == ["Conv", "Relu"]
    inputs = {
        i.name: np.zeros([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32) for i in small.graph.input
    }
    import onnxruntime

    assert onnxruntime.InferenceSession(small.proto.SerializeToString()).run(None, inputs)
    # What does not fail is left as it is.
    assert reduced(small, Pipeline.parse("normalize").make()[0], Check.NONE) is small


def test_a_failure_leaves_a_reproducer(tmp_path: Path) -> None:
    given = ("run", RESIDUAL, "-o", tmp_path / "out.onnx", "--pipeline", "normalize, picky{share=0.25}")
    said = refused(1, *given, "--reproducer", tmp_path / "found")
    assert "a Relu behind a Conv" in said
    assert not (tmp_path / "out.onnx").exists()
    text = (tmp_path / "found" / "reproducer.txt").read_text()
    assert text == "picky{share=0.25}\n"
    with pytest.raises(PassError, match="a Relu behind a Conv"):
        Pipeline.parse(text).run(tmp_path / "found" / "reproducer.onnx")
    assert json.dumps(str(tmp_path / "found" / "reproducer.onnx"))[1:-1] in said
