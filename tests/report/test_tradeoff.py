"""The trade-off: the right points are on the front, and the page's controls do what they say."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import onnxprune
from onnxprune.exploration import Run, read_results
from onnxprune.pruning.comparison import compare
from onnxprune.report.tradeoff import tradeoff
from tests.cli.support import RESIDUAL, VGG, done, refused
from tests.report.browser import PHONE, Opened, opened
from tests.report.runs import MODES, write_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COUNT, FAILURES = 60, 2
POINTS = "#chart-tradeoff svg .mark-symbol [aria-roledescription=point]"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "runs.sqlite"
    write_runs(path, RESIDUAL, COUNT, failures=FAILURES)
    return path


@pytest.fixture(scope="module")
def tradeoff_page(table: Path) -> Path:
    path = table.with_name("report.html")
    done("report", RESIDUAL, "--results", table, "-o", path)
    return path


def beaten(run: Run, others: tuple[Run, ...], resource: str) -> bool:
    """Whether another run is nowhere worse and somewhere better: the definition, word by word."""
    mine = (-run.accuracy, getattr(run, resource))  # type: ignore[operator]
    theirs = [(-other.accuracy, getattr(other, resource)) for other in others]  # type: ignore[operator]
    return any(a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in theirs)


@pytest.mark.parametrize("resource", ["params", "flops", "memory", "latency", "size"])
def test_fronts_are_those_of_the_definition(table: Path, resource: str) -> None:
    results = read_results(table)
    data = tradeoff(results, onnxprune.analyze(RESIDUAL))
    wanted = {index for index, run in enumerate(results.done) if not beaten(run, results.done, resource)}
    front = data["fronts"][resource]
    assert set(front) == wanted
    assert 1 < len(front) < COUNT
    assert [data["runs"][resource][index] for index in front] == sorted(data["runs"][resource][i] for i in front)


def test_plans_of_the_front_tell_the_channels(table: Path) -> None:
    results, analysis = read_results(table), onnxprune.analyze(RESIDUAL)
    data = tradeoff(results, analysis)
    assert data["left"]
    for index, left in data["left"].items():
        comparison = compare(analysis, results.plan(results.done[index].key))
        assert left == [layer.after.channels for layer in comparison.layers]


def test_results_of_another_model_are_refused(table: Path, tmp_path: Path) -> None:
    message = refused(2, "report", VGG, "--results", table, "-o", tmp_path / "r.html")
    assert "holds runs of another model" in message
    assert not list(tmp_path.iterdir())


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_bytes(b"SQLite format 3\0 and then nothing of the kind" * 100)
    message = refused(2, "report", RESIDUAL, "--results", tmp_path / "runs.sqlite", "-o", tmp_path / "r.html")
    assert "damaged" in message
    assert not (tmp_path / "r.html").exists()


@pytest.mark.browser
def test_every_run_is_a_point_and_modes_can_be_hidden(browser: Browser, tradeoff_page: Path) -> None:
    with opened(browser, tradeoff_page) as view:
        view.reveal("tradeoff")
        assert view.page.locator(POINTS).count() == COUNT + 1  # the original, too
        front = view.page.locator("#front tbody tr").count()
        view.page.get_by_label("flops", exact=True).uncheck()
        view.settle()
        hidden = sum(index % 3 == MODES.index("flops") for index in range(COUNT))
        assert view.page.locator(POINTS).count() == COUNT + 1 - hidden
        assert not any("flops" in text for text in view.texts("#front tbody td:first-child"))
        view.page.get_by_label("flops", exact=True).check()
        view.settle()
        assert view.page.locator(POINTS).count() == COUNT + 1
        assert view.page.locator("#front tbody tr").count() == front
        assert view.console == []


@pytest.mark.browser
def test_the_front_without_a_mode_is_that_of_the_others(browser: Browser, table: Path, tradeoff_page: Path) -> None:
    others = tuple(run for run in read_results(table).done if run.mode != "params")
    wanted = sum(not beaten(run, others, "size") for run in others)
    with opened(browser, tradeoff_page) as view:
        view.reveal("tradeoff")
        view.select("resource", "size")
        view.page.get_by_label("params", exact=True).uncheck()
        view.settle()
        assert view.page.locator("#front tbody tr").count() == wanted


@pytest.mark.browser
def test_a_click_on_a_point_shows_its_plan_and_a_command_that_makes_it(
    browser: Browser, table: Path, tradeoff_page: Path, tmp_path: Path
) -> None:
    results, analysis = read_results(table), onnxprune.analyze(RESIDUAL)
    index = min(tradeoff(results, analysis)["left"])
    run = results.done[index]
    with opened(browser, tradeoff_page) as view:
        view.reveal("tradeoff")
        click_point(view, index)
        assert view.page.locator("#run h3").inner_text().startswith(f"{run.mode} −{100 * run.reduce:g} %")
        command = view.page.locator("#run code").inner_text()
        rows = view.texts("#run tbody tr td:last-child")
        widths = view.page.locator(POINTS).evaluate_all("all => all.map(point => point.getBBox().width)")
        assert widths.index(max(widths)) == index, "the chosen point is the largest"
    plan = results.plan(run.key)
    changes = [layer for layer in compare(analysis, plan).layers if layer.before.channels != layer.after.channels]
    assert rows == [f"{layer.before.channels} → {layer.after.channels}" for layer in changes]
    words = shlex.split(command)[1:]
    words[words.index(RESIDUAL.name)] = str(RESIDUAL)
    words[words.index("pruned.onnx")] = str(tmp_path / "pruned.onnx")
    done(*words, "--plan-out", tmp_path / "plan.json", "--no-verify")
    assert onnxprune.Plan.load(tmp_path / "plan.json").removed == plan.removed


@pytest.mark.browser
def test_hovering_over_a_point_tells_the_run(browser: Browser, tradeoff_page: Path) -> None:
    with opened(browser, tradeoff_page) as view:
        view.reveal("tradeoff")
        view.page.locator(POINTS).first.hover(force=True)
        view.page.wait_for_selector("#vg-tooltip-element.visible")
        assert "complexity, l2, seed" in view.page.locator("#vg-tooltip-element").inner_text()


@pytest.mark.browser
def test_failures_are_told_and_their_messages_are_text(browser: Browser, tradeoff_page: Path) -> None:
    with opened(browser, tradeoff_page, PHONE) as view:
        assert view.page.locator("#failures h3").inner_text() == f"{FAILURES} runs failed"
        assert "<b>at all</b>" in view.texts("#failures li")[0]
        assert view.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.browser
def test_failures_alone_have_a_page(browser: Browser, tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.sqlite", RESIDUAL, 0, failures=3)
    done("report", RESIDUAL, "--results", tmp_path / "runs.sqlite", "-o", tmp_path / "r.html", "--svg")
    with opened(browser, tmp_path / "r.html") as view:
        assert view.page.locator("#failures li").count() == 3
        assert view.page.locator("#shown-runs").inner_text() == "0 of 3 runs"
        assert view.console == []


@pytest.mark.browser
def test_the_front_can_be_chosen_from_by_keyboard(browser: Browser, tradeoff_page: Path) -> None:
    with opened(browser, tradeoff_page) as view:
        button = view.page.locator("#front tbody button").nth(1)
        label = button.inner_text()
        button.focus()
        view.page.keyboard.press("Enter")
        assert view.page.locator("#run h3").inner_text() == label


def click_point(view: Opened, index: int) -> None:
    """Click on the point of a run: points are drawn in the order of runs."""
    view.page.locator(POINTS).nth(index).click(force=True)
    view.settle()
