"""The first steps of every command: read the model, look at it, and say what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.options import input_shapes
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.ir.model import Model
    from onnxprune.ir.state import State


def read(terminal: Terminal, path: Path) -> Model:
    """Load a model and check that it is valid. Raises ModelError."""
    with terminal.step(f"Reading {path.name}"):
        from onnxprune.ir.model import load
        from onnxprune.ir.validation import validate

        model = load(path)
        model.derived(validate)
    return model


@dataclass(frozen=True)
class Reading:
    """A model, what is known about it, and the input shapes that were asked for (None: the defaults)."""

    model: Model
    analysis: Analysis
    shapes: Mapping[str, tuple[int, ...]] | None


def read_and_analyze(
    terminal: Terminal,
    path: Path,
    given: Sequence[str] | None,
    split: str = "finest",
    otherwise: Mapping[str, tuple[int, ...]] | None = None,
    state: State = None,
) -> Reading:
    """Load and analyse a model for the values of ``--input-shape`` (or the shapes in ``otherwise``) and ``--split``.

    Raises:
        ModelError: the model cannot be read or is not valid.
        ShapeError: the shapes contradict it.
        UsageError: a shape is malformed, or ``state`` names what the model does not have.
    """
    model = read(terminal, path)
    shapes = input_shapes(given, model) or otherwise or None
    with terminal.step("Analysing"):
        from onnxprune.analysis.analyzing import analyze

        return Reading(model, analyze(model, shapes, split=split, state=state), shapes)
