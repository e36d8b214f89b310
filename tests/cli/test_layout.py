"""How things look: units, names, and tables that fit."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import onnx
import pytest
import typer
from rich.console import Console

from onnxprune._display import compact, long, percent, short, shorten, shorten_all
from onnxprune.cli.explain import ranges
from onnxprune.cli.names import apart, resolve
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import parse_quantity
from tests.cli.support import MODELS, done, model, node, process, refused, run, saved


@pytest.mark.parametrize(
    ("text", "value"),
    [("5M", 5e6), ("1.2G", 1.2e9), ("300k", 3e5), ("2e6", 2e6), ("64MiB", 2**26), ("10 MB", 1e7), ("1_000", 1000)],
)
def test_quantities_are_read(text: str, value: float) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "M", "5Q", "-3", "five", "1.2.3", "nan", "1e999999x"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.7, "1.00k"),
        (1000, "1.00k"),
        (1234, "1.23k"),
        (99_960, "100k"),
        (1.5e6, "1.50M"),
    ],
)
def test_quantities_are_written(value: float, expected: str) -> None:
    assert short(value) == expected
    assert len(expected) <= 5


def test_units_and_percentages() -> None:
    assert long(1.5e6, "B") == "1.50 MB"
    assert long(12) == "12"
    assert percent(0.0001) == "<0.1 %"
    assert percent(0.123) == "12.3 %"


def test_names_are_shortened_with_care() -> None:
    name = "/features/features.2/conv/conv.0/conv.0.0/Conv"
    assert compact(name) == "/features.2/conv.0.0/Conv"
    assert shorten(name, 80, "Conv") == name
    assert shorten(name, 25, "Conv") == "/features.2/conv.0.0/Conv"
    assert shorten(name, 20, "Conv") == "/features.2/conv.0.0"
    assert shorten(name, 15, "Conv") == "/featur…onv.0.0"
    for width in range(1, 60):
        assert len(shorten(name, width)) <= width


def test_ambiguous_names_stay_globs() -> None:
    layers = [("/a/a.0/Conv", "Conv"), ("/a/a.1/Conv", "Conv")]
    assert resolve("/a.0", layers) == "/a/a.0/Conv"
    assert resolve("/a…Conv", layers) == "/a*Conv"
    assert resolve("nothing", layers) == "nothing"


def test_ranges() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert ranges([0, 2, 4, 6, 8]) == "0, 2, 4, 6, …"


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("source", sorted(MODELS.glob("*.onnx"))[::3], ids=lambda path: path.stem)
def test_nothing_is_wider_than_the_terminal(source: Path, columns: int, tmp_path: Path) -> None:
    prune = ["prune", source, "-o", tmp_path / "out.onnx", "--reduce", "0.5", "--no-verify"]
    layer = done("analyze", source).splitlines()[2].split()[0]
    for words in (["analyze", source], prune, ["explain", source, layer], ["passes"]):
        for line in done(*words, columns=columns).splitlines():
            assert len(line.rstrip()) <= columns, line


def test_output_that_is_no_terminal_is_not_shortened(tmp_path: Path) -> None:
    path = saved(tmp_path, model(node("Relu", ["x"], "y")))
    assert run("analyze", path).exit_code == 0
    long_name = "/stages/stages.2/shortcut/shortcut.0/Conv"
    assert long_name in done("analyze", MODELS / "residual_torchscript.onnx")
    assert long_name not in done("analyze", MODELS / "residual_torchscript.onnx", columns=80)


def test_what_is_left_of_names_tells_them_apart() -> None:
    names = [f"/blocks/block_{i}/branch_{j}/conv_{k}/weights" for i in range(3) for j in range(4) for k in range(3)]
    shown = [shorten(name, 24, among=names) for name in names]
    assert len(set(shown)) == len(names)
    assert all(len(text) == 24 for text in shown)
    layers = [(name, "Conv") for name in names]
    assert [resolve(text, layers) for text in shown] == names  # what is shown can be pasted back
    assert shorten("a" * 30, 10, among=["a" * 30, "a" * 29]) == "aaaa…aaaaa"  # nothing would


def test_files_are_named_without_the_folders_that_they_share(tmp_path: Path) -> None:
    assert apart([f"{tmp_path}/x/a.onnx", f"{tmp_path}/y/a.onnx"]) == ("x/a.onnx", "y/a.onnx")
    assert apart([f"{tmp_path}/x/a.onnx"]) == ("a.onnx",)


def test_help_is_brief_and_the_whole_can_be_asked_for() -> None:
    brief, whole = done("prune", "-h", columns=80), done("prune", "--help-all", columns=80)
    assert len(brief.splitlines()) <= 60
    assert brief == done("prune", "--help", columns=80), "asking for all leaves nothing behind"
    assert "--accept-unwitnessed" not in brief
    for option in ("--accept-unwitnessed", "--grouped", "--threads", "--plugin", "--task"):
        assert option in whole
    assert "--help-all" not in done("passes", "--help-all", columns=80).replace("--help-all", "", 1)


def test_commands_are_listed_by_purpose() -> None:
    text = done("-h", columns=80)
    places = [
        text.index(part) for part in ("Look at a model", "bench", "Make it smaller", "│ prune", "Train it", "merge")
    ]
    assert places == sorted(places)


def test_misspelled_words_are_guessed(tmp_path: Path) -> None:
    common = ("prune", MODELS / "vgg_torchscript.onnx", "-o", tmp_path / "o.onnx", "--reduce", 0.3)
    assert "did you mean reconstruction? Choose one of" in refused(2, *common, "--criterion", "reconstrucion")
    assert "did you mean uniform?" in refused(2, *common, "--allocation", "unifrom")
    assert "did you mean latency?" in refused(2, *common, "--mode", "latnecy")
    assert "did you mean detection?" in refused(2, *common, "--task", "detections")
    assert "Did you mean 'prune'?" in refused(2, "prnue")


def test_a_model_goes_to_stdout(tmp_path: Path) -> None:
    model = MODELS / "vgg_torchscript.onnx"
    piped = process("prune", model, "--reduce", 0.3, "-o", "-", binary=True)
    assert piped.returncode == 0, piped.stderr
    done("prune", model, "--reduce", 0.3, "-o", tmp_path / "o.onnx")
    made, written = onnx.load_model_from_string(piped.stdout), onnx.load(tmp_path / "o.onnx")
    assert made == written
    assert b"Certificate passed" in piped.stderr
    assert (
        "cannot both go to stdout"
        in json.loads(run("run", model, "-o", "-", "--passes", "normalize", "--json").stdout)["error"]["message"]
    )
    assert not Path("-").exists()


def test_names_of_one_list_stay_apart_where_they_are_short() -> None:
    layers = [f"/features/denseblock{i}/denselayer{j}/conv{k}" for i in "12" for j in "123" for k in "12"]
    for width in (22, 32):
        short = shorten_all([*layers, "/stem"], width)
        assert max(map(len, short)) <= width
        assert len({*short}) == len(short)
    assert short[-1] == "/stem"


def test_steps_say_how_much_is_done_where_that_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce(threading.Timer):
        def start(self) -> None:
            self.function()

        def join(self, timeout: float | None = None) -> None:
            pass

    monkeypatch.setattr(threading, "Timer", AtOnce)
    terminal, seen = Terminal(), io.StringIO()
    terminal._progress = Console(file=seen, force_terminal=True, width=60)
    with terminal.step("Scanning") as tell:
        tell(2, 7)
    assert "Scanning … 2 of 7" in seen.getvalue()
