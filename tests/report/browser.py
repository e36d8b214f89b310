"""A headless Chromium for the pages, where one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Opened:
    """A page, what it wrote to the console, and what it asked the network for."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def reveal(self, chart: str) -> None:
        """Scroll to a chart, which is drawn when a reader comes near it."""
        self.page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
        self.page.wait_for_selector(f"#chart-{chart} :is(svg, canvas)")
        self.settle()

    def settle(self) -> None:
        """Wait until the charts show what was chosen."""
        self.page.wait_for_function("!document.querySelector('[aria-busy]')")

    def select(self, control: str, value: str) -> None:
        """Choose an option of a ``<select>`` and wait for the charts."""
        self.page.select_option(f"#{control}", value)
        self.settle()

    def texts(self, selector: str) -> list[str]:
        """The text of every element that a selector finds."""
        return self.page.locator(selector).all_inner_texts()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, closed when the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, path: Path, size: tuple[int, int] = DESKTOP, *, scheme: str = "light") -> Iterator[Opened]:
    """A page in a window of this size, when all of it is drawn."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        view = Opened(context.new_page())
        view.page.on("console", lambda message: view.console.append(message.text))
        view.page.on("pageerror", lambda error: view.console.append(str(error)))
        view.page.on("request", lambda request: view.requests.append(request.url))
        view.page.goto(path.as_uri())
        view.page.wait_for_selector("html[data-ready]", timeout=30_000)
        yield view
    finally:
        context.close()
