"""Static plots: they show the figures that they are given, and end in files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.exploration import read_results
from onnxprune.exploration.pareto import beats
from onnxprune.pruning.comparison import compare
from onnxprune.report import figures
from onnxprune.splitting import Link, Setting, weigh
from tests.benchmarks.generated import residual
from tests.cli.support import RESIDUAL, done, done_json, refused, run
from tests.latency.fakes import FakeMachine
from tests.report.runs import write_runs

METRICS = ("params", "flops", "memory")


def test_complexity_shows_the_shares_in_percent() -> None:
    analysis = onnxprune.analyze(RESIDUAL)
    for axes, metric in zip(figures.complexity(analysis).axes, METRICS, strict=True):
        widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
        assert widths == pytest.approx([100 * layer.shares[metric] for layer in analysis.layers])
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first layer is on top"


def test_changes_show_before_and_after(folder: Path) -> None:
    comparison = compare(onnxprune.analyze(RESIDUAL), onnxprune.Plan.load(folder / "half.json"))
    for axes, metric in zip(figures.changes(comparison).axes, METRICS, strict=True):
        widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
        before = [getattr(layer.before, metric) for layer in comparison.layers]
        after = [getattr(layer.after, metric) for layer in comparison.layers]
        assert widths == pytest.approx(before + after)


def test_many_layers_become_columns() -> None:
    analysis = onnxprune.analyze(residual(200))
    figure = figures.complexity(analysis)
    assert len(analysis.layers) > 60
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        path = axes.collections[0].get_paths()[0]
        assert path.vertices[:, 1].max() == pytest.approx(100 * max(layer.shares[metric] for layer in analysis.layers))


def test_the_tradeoff_shows_all_runs_and_the_front(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs.sqlite", RESIDUAL, 30, failures=1)
    results = read_results(tmp_path / "runs.sqlite")
    (axes,) = figures.tradeoff(results, "size").axes
    points = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    assert len(points) == len(runs) + 1  # the original
    original = results.original
    assert original is not None
    assert not any(beats(run, original, ("size",)) for run in results.done), "the front ends at the original"
    wanted = sorted((run.size, run.accuracy) for run in (*results.pareto(("size",)), original))
    assert np.asarray(axes.lines[0].get_xydata()) == pytest.approx(np.array(wanted))
    with pytest.raises(UsageError):
        figures.tradeoff(results, "taste")


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize("command", ["analyze", "split"])
def test_plots_go_to_a_file_that_is_the_same_every_time(command: str, kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    assert f"a.{kind}" in done(command, RESIDUAL, "--plot", first).replace("\n", "")
    done_json(command, RESIDUAL, "--plot", second)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[kind])


@pytest.mark.parametrize("timed", [False, True])
def test_cuts_are_where_their_figures_are(timed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    analysis = onnxprune.analyze(RESIDUAL)
    times = onnxprune.record_times(analysis, machine=FakeMachine())
    setting = Setting("int8", Link(1e7, 0.02), times, times) if timed else Setting()
    found = weigh(analysis, setting)
    axes = figures.cuts(found).axes[0]
    drawn = {str(one.get_label()): np.asarray(one.get_offsets()) for one in axes.collections}
    over = "latency" if timed else "macs"
    best = [(found.value(c, "wire"), found.value(c, over)) for c in found.cuts if c.best and c.cut is not None]
    assert drawn["no other beats them"] == pytest.approx(np.array(best))
    assert len(drawn["cuts"]) == len(found.cuts) - len(best) - 2
    assert axes.lines[0].get_ydata()[0] == pytest.approx(found.value(found.cuts[-2], over))
    assert drawn["all in the tail"][0][1] == pytest.approx(found.value(found.cuts[-1], over))
    assert axes.get_ylabel() == ("latency (s)" if timed else "MACs of the head")


@pytest.mark.parametrize("command", ["analyze", "split"])
def test_other_formats_are_refused_before_the_work_begins(command: str, tmp_path: Path) -> None:
    message = refused(2, command, RESIDUAL, "--plot", tmp_path / "plot.docx")
    assert ".png, .svg, .pdf" in message
    assert not list(tmp_path.iterdir())


def test_reports_come_with_plots(folder: Path, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.sqlite", RESIDUAL, 9)
    words = (folder / "half.onnx", "--results", tmp_path / "runs.sqlite", "-o", tmp_path / "r.html", "--svg")
    plots = done_json("report", RESIDUAL, *words)["plots"]
    names = {f"r-{name}.svg" for name in ("complexity", "changes", "tradeoff")}
    assert {Path(plot).name for plot in plots} == names
    assert {path.name for path in tmp_path.iterdir()} == names | {"r.html", "runs.sqlite"}


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("analyze", RESIDUAL, "--plot", tmp_path / "a.svg")
    assert result.exit_code == 2
    assert "matplotlib, which is not installed; install it with: pip install 'jinja2" in result.stderr
    assert not list(tmp_path.iterdir())
