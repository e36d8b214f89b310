"""Node names in little space, and the names that people paste back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from onnxprune._display import ELLIPSIS, forms_of, shorten, shown

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.pruning.options import JobOptions

_LEAST = 16
_MOST = 1000
"""Among more names, none is looked for that tells them all apart: it would take too long."""


@dataclass(frozen=True)
class Name:
    """A name in a table: whole where there is room, else shortened to the width that is left.

    ``op_type`` is the node's, if another column of the table shows it: the name need not repeat it then. ``among`` are
    all names of the column: what is left of one tells it apart from the others, if that can be.
    """

    text: str
    op_type: str = ""
    among: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        among = self.among if len(self.among) <= _MOST else ()
        yield Text(shorten(shown(self.text), options.max_width, self.op_type, among), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = len(shown(self.text))
        return Measurement(min(_LEAST, width), width).with_maximum(options.max_width)


def apart(files: Sequence[str]) -> tuple[str, ...]:
    """Names of files without the folders that all of them lie in."""
    if len(set(files)) < 2:
        return tuple(os.path.basename(file) or file for file in files)
    try:
        common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    except ValueError:  # on different drives
        return tuple(files)
    return tuple(os.path.relpath(os.path.abspath(file), common) for file in files)


def resolve(pattern: str, layers: Sequence[tuple[str, str]]) -> str:
    """The layer that a name copied from a table stands for; names and globs as they are.

    Args:
        pattern: what was typed.
        layers: name and operator of every layer.
    """
    if any(name == pattern for name, _ in layers):
        return pattern
    spelled = [name for name, _ in layers if shown(name) == pattern]
    if len(spelled) == 1:
        return spelled[0]
    glob = pattern.replace(ELLIPSIS, "*")
    found = [name for name, op_type in layers if any(fnmatchcase(form, glob) for form in forms_of(name, op_type)[1:])]
    return found[0] if len(found) == 1 else glob


def with_layers(job: JobOptions, analysis: Analysis) -> JobOptions:
    """The options with the whole names of the layers that they name."""
    layers = [(layer.name, layer.op_type) for layer in analysis.layers]
    return replace(job, keep_float=[resolve(name, layers) for name in job.keep_float])
