"""The page in a real browser: it loads, it asks for nothing, and its controls do what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.pruning.comparison import compare
from onnxprune.pruning.plan import Plan
from tests.cli.support import RESIDUAL, conv, done, model, node, run, saved
from tests.report.browser import DESKTOP, PHONE, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything that makes it wide: times of layers, a failed file, long names, more layers than fit."""
    folder = tmp_path_factory.mktemp("wide")
    parts = []
    for number in range(60):
        parts.append(conv(f"t{number}" if number else "x", f"t{number + 1}", 96, 96 if number else 3))
        weight = parts[-1][1]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) / np.float32(30), weight.name))
        parts[-1][0].name = f"/features/a_rather_long_name_of_a_stage.{number}/conv_of_the_block.{number}/Conv"
    parts.append(conv("t60", "y", 4, 96))
    path = saved(folder, model(*parts))
    for reduce in ("0.3", "0.5"):
        done(
            "prune",
            path,
            "-o",
            folder / f"less_by_{reduce}.onnx",
            "--reduce",
            reduce,
            "--no-bench",
            "--criterion",
            "l1",
        )
    done("plan", path, "-o", folder / "other.json", "--reduce", "0.6", "--criterion", "l1")
    files = (folder / "less_by_0.3.onnx", folder / "less_by_0.5.onnx")
    plans = ("--plan", folder / "other.json", "--plan", folder / "other.json")
    assert run("report", path, *files, *plans, "-o", folder / "r.html", "--time").exit_code == 1
    return folder / "r.html"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(browser: Browser, page: Path, wide: Path, size: tuple[int, int]) -> None:
    for path in (page, wide):
        with opened(browser, path, size) as view:
            for chart in ("changes", "coupling", "shares", "memory"):
                view.reveal(chart)
            assert view.page.evaluate("document.documentElement.scrollWidth") <= size[0]
            if size == DESKTOP:  # no column is cut
                assert view.page.locator("#layers").evaluate("t => t.scrollWidth <= t.parentElement.clientWidth")
            right = "all => Math.max(...all.map(one => one.getBoundingClientRect().right))"
            assert view.page.locator(".card, .card dd, pre").evaluate_all(right) <= size[0]
            beyond = view.page.locator("#chart-coupling").evaluate(
                "c => c.scrollWidth > c.parentElement.clientWidth + 1"
            )
            assert view.page.locator("#cue-coupling").is_visible() == beyond


def test_the_verdict_is_first_and_failures_are_red_and_on_top(browser: Browser, page: Path, wide: Path) -> None:
    for path in (page, wide):
        with opened(browser, path) as view:
            assert view.page.locator("main section h2").first.inner_text() == "Verdict"
            assert view.page.locator(".card dt").all_inner_texts()[:2] == ["Certificate", "Answers"]
    with opened(browser, wide) as view:
        first = view.page.locator(".card").first
        assert first.bounding_box()["y"] < DESKTOP[1] / 2  # type: ignore[index]
        assert "FAILED" in first.inner_text()
        red = [
            int(part)
            for part in re.findall(r"\d+", first.locator(".headline").evaluate("e => getComputedStyle(e).color"))
        ]
        assert red[0] > 2 * max(red[1:3])


def test_layers_have_names_where_there_is_room(browser: Browser, wide: Path) -> None:
    with opened(browser, wide) as view:
        for chart in ("changes", "shares", "coupling"):
            view.reveal(chart)
            texts = view.page.locator(f"#chart-{chart} svg text").all_text_contents()
            assert sum("conv_of_the" in text or "…" in text for text in texts) >= 60, chart
        assert view.page.locator("#chart-shares svg .role-title-text").count() == 3


def test_commands_can_be_copied(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        buttons = view.page.locator(".command .copy")
        assert buttons.count() == view.page.locator("pre").count() == 3
        buttons.last.click()
        view.page.wait_for_function("document.querySelectorAll('.copy')[2].textContent !== 'copy'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_opens_without_complaint_and_without_the_network(
    browser: Browser, page: Path, size: tuple[int, int], scheme: str
) -> None:
    with opened(browser, page, size, scheme=scheme) as view:
        for chart in ("changes", "coupling", "shares", "memory"):
            view.reveal(chart)
            assert view.page.locator(f"#chart-{chart} svg path").count() > 0
        assert view.console == []
        assert [url for url in view.requests if url != page.as_uri() and not url.startswith("data:")] == []
        assert view.page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_totals_and_certificates_need_no_script(browser: Browser, page: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(page.as_uri())
    assert "4.44 M" in plain.locator("#totals + .scroll").inner_text()
    assert plain.locator(".badge.passed").count() == 2
    context.close()


def test_the_table_holds_the_figures_of_the_comparison(browser: Browser, page: Path, folder: Path) -> None:
    comparison = compare(onnxprune.analyze(RESIDUAL), Plan.load(folder / "half.json"))
    with opened(browser, page) as view:
        buttons = view.page.locator("#layers tbody td:nth-child(1) button")
        names = buttons.evaluate_all("all => all.map(button => button.title)")
        channels = view.texts("#layers tbody td:nth-child(3)")
    assert names == [layer.name for layer in comparison.layers]
    expected = [f"{layer.before.channels} → {layer.after.channels}" for layer in comparison.layers]
    assert [cell.split(" → ") for cell in channels] == [
        cell.split(" → ")[: 1 if len(set(cell.split(" → "))) == 1 else 2] for cell in expected
    ]


def test_a_click_sorts_the_table_and_another_turns_it_round(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        button = view.page.get_by_role("button", name="may go")
        button.click()
        falling = [int(text) for text in view.texts("#layers tbody td:nth-child(4)")]
        assert view.page.locator("th[aria-sort=descending]").inner_text().startswith("may go")
        view.page.keyboard.press("Enter")  # the focus stays where it was
        rising = [int(text) for text in view.texts("#layers tbody td:nth-child(4)")]
    assert falling == sorted(falling, reverse=True)
    assert falling != sorted(falling)
    assert rising == sorted(falling)


def test_the_search_filters_the_table(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.page.fill("#search", "SHORTCUT")
        names = view.texts("#layers tbody td:nth-child(1)")
        assert len(names) == 2
        assert all("shortcut" in name for name in names)
        assert view.page.locator("#found").inner_text() == "2 of 14 layers"
        view.page.fill("#search", "nothing is called so")
        assert view.page.locator("#layers tbody tr").count() == 0


def test_another_pruned_model_and_another_metric_change_chart_and_table(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.reveal("changes")
        bars = "#chart-changes svg [aria-roledescription=bar]"
        first = view.page.locator(bars).evaluate_all("all => all.map(bar => bar.getAttribute('d'))")
        table = view.texts("#layers tbody tr")
        view.select("candidate", "1")
        second = view.page.locator(bars).evaluate_all("all => all.map(bar => bar.getAttribute('d'))")
        assert first != second
        assert view.texts("#layers tbody tr") != table
        view.select("metric", "params")
        third = view.page.locator(bars).evaluate_all("all => all.map(bar => bar.getAttribute('d'))")
        assert len(first) == len(second) == len(third) == 28
        assert third != second


def test_hovering_over_a_bar_tells_its_figures(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.reveal("changes")
        view.page.locator("#chart-changes svg [aria-roledescription=bar]").first.hover(force=True)
        view.page.wait_for_selector("#vg-tooltip-element.visible")
        text = view.page.locator("#vg-tooltip-element").inner_text()
    assert "/stem/stem.0/Conv" in text
    assert re.search(r"original\s+113 k", text)


def test_a_click_on_a_layer_lights_up_its_group(browser: Browser, page: Path) -> None:
    analysis = onnxprune.analyze(RESIDUAL)
    name = "/stages/stages.2/second/second.0/Conv"
    layer = next(layer for layer in analysis.layers if layer.name == name)
    (group,) = layer.groups
    partners = [other for other in analysis.groups[group].layers if other != name]
    with opened(browser, page) as view:
        view.reveal("coupling")
        dots = view.page.locator("#chart-coupling svg [aria-roledescription=point]")
        lit = "all => all.filter(dot => dot.getAttribute('opacity') === '1').length"
        assert dots.evaluate_all(lit) == 0
        dots.nth(analysis.layers.index(layer)).click()
        view.page.wait_for_selector("#detail h3")
        assert view.page.locator("#detail h3").inner_text() == name
        assert dots.evaluate_all(lit) == 1 + len(partners)
        buttons = view.page.locator("#detail ul:first-of-type button")
        shown = buttons.evaluate_all("all => all.map(button => button.title)")
        assert shown == partners
        assert view.page.input_value("#layer") == str(analysis.layers.index(layer))
        assert view.page.locator("#layers tr.chosen").count() == 1


def test_a_pinned_layer_tells_its_reason(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.select("layer", "13")
        assert "reaches graph output 'logits'" in view.page.locator("#detail").inner_text()


def test_everything_can_be_reached_by_keyboard(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        seen = []
        for _ in range(40):
            view.page.keyboard.press("Tab")
            seen.append(view.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert seen[0] == "Skip to content"
        wanted = {"candidate", "metric", "search", "parameters", "/stem.0"}
        assert wanted <= set(seen)
        view.page.locator("#layers tbody button").nth(3).focus()
        view.page.keyboard.press("Enter")
        assert view.page.locator("#detail h3").inner_text() == "/stages/stages.1/first/first.0/Conv"


def test_hovering_over_memory_tells_the_node(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.reveal("memory")
        view.page.locator("#chart-memory svg").hover()
        view.page.wait_for_selector("#vg-tooltip-element.visible")
        text = view.page.locator("#vg-tooltip-element").inner_text()
    assert re.search(r"alive\s+original [\d.]+ kB; half.onnx [\d.]+ kB; third.onnx [\d.]+ kB", text)


def test_print_has_all_charts(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        assert view.page.locator("#chart-memory svg").count() == 0
        view.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        view.page.wait_for_selector("#chart-memory svg")


def test_the_theme_follows_the_system(browser: Browser, page: Path) -> None:
    with opened(browser, page) as view:
        view.reveal("changes")
        bar = view.page.locator("#chart-changes svg [aria-roledescription=bar]").first
        light = bar.get_attribute("fill")
        view.page.emulate_media(color_scheme="dark")
        view.page.wait_for_timeout(500)
        assert bar.get_attribute("fill") != light


def test_names_with_markup_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror=document.title='broken'><!-- "
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))
    proto.graph.node[0].name = nasty
    done("report", saved(tmp_path, proto), "-o", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html") as view:
        view.reveal("coupling")
        view.select("layer", "0")
        assert view.page.locator("#detail h3").inner_text() == nasty.strip()
        view.reveal("changes")
        view.page.locator("#chart-changes svg [aria-roledescription=bar]").first.hover(force=True)
        view.page.wait_for_selector("#vg-tooltip-element.visible")
        assert "onerror" in view.page.locator("#vg-tooltip-element").inner_text()
        assert view.page.locator("img").count() == 0
        assert view.page.title() != "broken"
        assert view.console == []


def test_a_model_without_layers_has_a_page(browser: Browser, tmp_path: Path) -> None:
    done("report", saved(tmp_path, model(node("Relu", ["x"], "y"))), "-o", tmp_path / "r.html")
    with opened(browser, tmp_path / "r.html") as view:
        assert view.page.locator("#found").inner_text() == "0 layers"
        view.reveal("memory")
        assert view.page.locator("#chart-memory svg").count() == 1
        assert view.console == []


def test_the_data_are_those_of_the_analysis(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    data = json.loads(match[1])
    analysis = onnxprune.analyze(RESIDUAL)
    assert data["metrics"]["flops"]["before"] == [layer.flops for layer in analysis.layers]
    assert max(data["memory"][0]["bytes"]) == analysis.totals["peak_activations"]
