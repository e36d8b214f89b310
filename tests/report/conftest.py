"""The page that most tests look at, written once, and the browser, started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.support import RESIDUAL, done

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two pruned forms of the residual model, their plans, and ``report.html`` about all of them."""
    folder = tmp_path_factory.mktemp("report")
    for name, mode, reduce in (("half", "flops", "0.5"), ("third", "params", "0.3")):
        plan = folder / f"{name}.json"
        done("prune", RESIDUAL, "-o", folder / f"{name}.onnx", "--mode", mode, "--reduce", reduce, "--plan-out", plan)
    half, third = folder / "half", folder / "third"
    files = (f"{half}.onnx", f"{third}.onnx", "--plan", f"{half}.json", "--plan", f"{third}.json")
    done("report", RESIDUAL, *files, "-o", folder / "report.html")
    return folder


@pytest.fixture(scope="session")
def page(folder: Path) -> Path:
    """The report about the residual model and its two pruned forms."""
    return folder / "report.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; tests are skipped where none is installed."""
    pytest.importorskip("playwright")
    from tests.report.browser import CHROMIUM, chromium

    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with chromium() as running:
        yield running
