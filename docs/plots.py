"""Draws the pictures of the documentation: ``python docs/plots.py [RESULTS]`` writes docs/img.

The residual model as the README's quick start prunes it, as static plots and as the page that ``onnxprune report``
writes (photographed where a Chromium is installed); with RESULTS, a table of ``onnxprune explore``, the trade-off, too.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import onnxprune
from onnxprune.exploration import read_results
from onnxprune.pruning.comparison import compare
from onnxprune.pruning.proving import Proof
from onnxprune.report import Report, candidate, figures, subject
from onnxprune.report.page import render

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "img"
MODEL = ROOT / "models" / "residual_torchscript.onnx"
CHROMIUM = shutil.which("chromium")
_COUPLED = "6"
"""The layer that is chosen in the picture of the coupling graph."""


def main(results: Path | None) -> None:
    """Write all pictures that there is data for."""
    IMAGES.mkdir(exist_ok=True)
    result = onnxprune.compress(MODEL, mode="flops", reduce=0.5)
    figures.save(figures.complexity(result.analysis), IMAGES / "complexity.svg")
    figures.save(figures.changes(compare(result.analysis, result.plan)), IMAGES / "changes.svg")
    runs = None if results is None else read_results(results)
    if runs is not None:
        figures.save(figures.tradeoff(runs), IMAGES / "tradeoff.svg")
    original = subject(MODEL.name, onnxprune.load(MODEL), result.analysis, MODEL)
    pruned = subject("smaller.onnx", result.model, onnxprune.analyze(result.model))
    proof = None if result.certificate is None else Proof(result.plan, result.certificate)
    shown = candidate(original, pruned, result.plan, proof)
    command = f"onnxprune report {MODEL.name} smaller.onnx --plan plan.json -o report.html"
    if CHROMIUM is None:
        print("no Chromium is installed: the pictures of the page stay as they are")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(render(Report(original, (shown,), runs, command)), encoding="utf-8")
        photograph(page)


def photograph(page: Path) -> None:
    """The page's layers by day, and its coupling graph by night."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        for scheme, section, name in (("light", "changes", "report-layers"), ("dark", "coupling", "report-coupling")):
            view = browser.new_page(viewport={"width": 1240, "height": 900}, color_scheme=scheme)
            view.goto(page.as_uri())
            view.wait_for_selector("html[data-ready]")
            if section == "coupling":
                view.select_option("#layer", _COUPLED)
            view.add_style_tag(content="section { padding: 1rem; }")
            part = view.locator(f"section[aria-labelledby={section}]")
            part.scroll_into_view_if_needed()
            view.wait_for_selector(f"#chart-{section}:not([aria-busy]) svg")
            part.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
