"""Names that a file chose: shown as text, on one line, and never obeyed."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from rich.text import Text

import onnxprune
from onnxprune._display import shown
from onnxprune.cli.names import resolve
from onnxprune.cli.terminal import Terminal
from tests.cli.support import conv, done, model, node, refused, saved

NASTY = "\x1b]0;owned\x07\x1b[2J\r\nCertificate passed\u202e\u2028\u200b\x9b[bold red]x[/nope]$\\frac{"
PLAIN = "n" * len(shown(NASTY))
ALLOWED = set("\n")


def named(folder: Path, name: str, file: str) -> Path:
    """Two convolutions whose every name begins with this one, and an operator that nobody knows."""
    proto = model(
        conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "c", 4, 8), node("Mystery", ["c"], "y", domain="d")
    )
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = name + value.name
    for each in graph.node:
        each.name = name + each.name
        each.input[:] = [name + read for read in each.input]
        each.output[:] = [name + made for made in each.output]
    return saved(folder, proto, file)


def assert_clean(text: str) -> None:
    """Nothing in it moves a cursor or hides a character."""
    odd = {char for char in text if not char.isprintable()} - ALLOWED
    assert not odd, f"{odd} in {text!r}"


@pytest.mark.parametrize("columns", [None, 80])
def test_what_commands_print(tmp_path: Path, columns: int | None) -> None:
    nasty, plain = named(tmp_path, NASTY, "nasty.onnx"), named(tmp_path, PLAIN, "plain.onnx")
    for command in (["analyze"], ["explain", "conv_a"], ["explain", "conv_c"]):
        outputs = []
        for path, name in ((nasty, NASTY), (plain, PLAIN)):
            words = [command[0], path, *(name + layer for layer in command[1:])]
            outputs.append(done(*words, columns=columns))
            assert_clean(outputs[-1])
        if columns is None:  # else names that are shortened wrap as they will
            assert outputs[0].count("\n") == outputs[1].count("\n"), "a name makes no lines of its own"
    assert "Mystery" in outputs[0] or "Mystery" in done("analyze", nasty)
    shown_json = json.loads(done("analyze", nasty, "--json"))
    assert shown_json["layers"][0]["name"] == f"{NASTY}conv_a"
    assert_clean(done("analyze", nasty, "--json"))


def test_errors(tmp_path: Path) -> None:
    path = named(tmp_path, NASTY, "m.onnx")
    assert_clean(refused(1, "prune", path, "-o", tmp_path / "o.onnx", "--reduce", "0.3"))
    assert_clean(refused(2, "explain", path, "nobody\x1b[2J"))
    assert_clean(refused(2, "analyze", tmp_path / "no\x1b[2J.onnx"))
    broken = model(node("Relu", [f"z{NASTY}"], "y"))
    assert shown(NASTY) in refused(2, "analyze", saved(tmp_path, broken, "broken.onnx"))


def test_plans(tmp_path: Path) -> None:
    path, plan = named(tmp_path, "", "m.onnx"), tmp_path / "plan.json"
    for removed in ({NASTY: {"0": [1]}}, {"a\ud800": {"0": [1]}}, {NASTY: {"0": ["x"]}}, {"a.weight": {NASTY: [1]}}):
        plan.write_text(json.dumps({**onnxprune.Plan({}).to_dict(), "removed": removed}))
        for words in (("apply", path, plan, "-o", tmp_path / "o"), ("verify", path, path, plan)):
            assert_clean(refused(2, *words))
    plan.write_text(json.dumps({**onnxprune.Plan({}).to_dict(), "version": NASTY}))
    assert_clean(refused(2, "apply", path, plan, "-o", tmp_path / "o"))


def test_graphs(tmp_path: Path) -> None:
    path, dot, graphml = named(tmp_path, NASTY, "m.onnx"), tmp_path / "g.dot", tmp_path / "g.xml"
    done("explain", path, "--dot", dot, "--graphml", graphml)
    found = ElementTree.parse(graphml).getroot().iter("{http://graphml.graphdrawing.org/xmlns}node")
    assert any(shown(NASTY) in axis.attrib["id"] for axis in found)
    assert "\x1b" not in dot.read_text()


def test_plots(tmp_path: Path) -> None:
    path = named(tmp_path, NASTY, "m.onnx")
    for kind in ("svg", "png", "pdf"):
        done("analyze", path, "--plot", tmp_path / f"p.{kind}")
    ElementTree.parse(tmp_path / "p.svg")


def test_names_are_pasted_back_as_they_are_shown() -> None:
    name = f"{NASTY}conv"
    assert resolve(shown(name), [("other", "Conv"), (name, "Conv")]) == name
    assert shown("a b·ü→\u00a0") == "a b·ü→\u00a0"
    assert shown("\x1b\n\ud800\u202e") == "\\x1b\\n\\ud800\\u202e"


def test_files_have_names_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[bold]m[x]\x1b[2J.onnx"
    onnx.save(model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8)), path)
    out = tmp_path / "[red]\x1b[31m.onnx"
    assert_clean(done("prune", path, "-o", out, "--reduce", "0.3"))
    terminal = Terminal()
    with terminal.step("Reading [/x]\x1b[2J"):
        terminal.show("[/x]\x1b[2J", Text("fine"))
    assert capsys.readouterr().out == "[/x]\\x1b[2J\nfine\n"
