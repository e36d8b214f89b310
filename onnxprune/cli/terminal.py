"""Where the output goes: results to stdout, progress to stderr, or JSON and nothing else."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from onnxprune._display import shown
from onnxprune.errors import UsageError

_PATIENCE = 1.0
"""Seconds before a step shows that it is running."""
_UNLIMITED = 10_000
_WIDE = 110


class _Console(Console):
    """A console on which text is only text: neither markup nor control characters in it mean anything."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, highlight=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)


class Terminal:
    """The two streams of one command.

    Args:
        as_json: results are one JSON document; all other output to stdout is left out.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        # Files and pipes have no width: nothing is shortened there.
        free = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        self._out = _Console(width=_UNLIMITED if free else None)
        self._progress = _Console(stderr=True)

    def leave_stdout(self) -> None:
        """Leave stdout to a model: what is told goes to stderr. Raises UsageError where that cannot be."""
        if self.as_json:
            raise UsageError("--json and a model cannot both go to stdout; name a file with -o")
        if sys.stdout.isatty():
            raise UsageError("-o - writes the model to stdout, which is a terminal; send it to a file or a pipe")
        self._out = _Console(stderr=True)

    @property
    def wide(self) -> bool:
        """Whether there is room for the columns that are nice to have."""
        return self._out.width >= _WIDE

    def show(self, *renderables: RenderableType, style: str = "") -> None:
        """Print for people. Text that files have a say in is to be a ``str``, and no ``Text``."""
        if not self.as_json:
            for renderable in renderables:
                self._out.print(renderable, style=style, soft_wrap=False)

    def json(self, data: Mapping[str, Any]) -> None:
        """Print for machines, if they were asked for."""
        if self.as_json:
            print(json.dumps(_plain(data), indent=2))

    @contextmanager
    def step(self, doing: str) -> Iterator[Callable[[int, int], None]]:
        """Show that something is under way, if it takes more than a moment and somebody watches.

        What it gives takes how much of how much is done, where the work can be counted.
        """
        if not self._progress.is_terminal:
            yield lambda done, of: None
            return
        status = self._progress.status(Text(shown(f"{doing} …")))

        def tell(done: int, of: int) -> None:
            status.update(Text(shown(f"{doing} … {done} of {of}")))

        patience = threading.Timer(_PATIENCE, status.start)
        patience.daemon = True
        patience.start()
        try:
            yield tell
        finally:
            patience.cancel()
            patience.join()
            status.stop()


def _plain(value: Any) -> Any:
    """The same without what JSON has no word for: infinities and NaN become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
