"""The first steps of every command: read the model, look at it, and say what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.names import some
from onnxprune.cli.options import input_shapes
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.analysis import Analysis
    from onnxprune.model import Model

MACS = "FLOPs are counted as MACs (multiply-accumulates); memory is bytes of weights and output activations."


def read(terminal: Terminal, path: Path) -> Model:
    """Load a model and check that it is valid. Raises ModelError."""
    with terminal.step(f"Reading {path.name}"):
        from onnxprune.model import load
        from onnxprune.validation import validate

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
) -> Reading:
    """Load and analyse a model for the values of ``--input-shape`` (or the shapes in ``otherwise``) and ``--split``.

    Raises:
        ModelError: the model cannot be read or is not valid.
        ShapeError: the shapes contradict it.
        UsageError: a shape is malformed.
    """
    model = read(terminal, path)
    shapes = input_shapes(given, model) or otherwise or None
    with terminal.step("Analysing"):
        from onnxprune.analysis import analyze

        return Reading(model, analyze(model, shapes, split=split), shapes)


def assumptions(analysis: Analysis) -> str:
    """The input shapes that all figures hold for, and which of them were guessed."""
    shapes = ", ".join(
        f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in analysis.shapes.binding.items()
    )
    text = f"Input shapes: {shapes or 'none'}."
    if analysis.shapes.assumed:
        text += f" Open dimensions of {', '.join(analysis.shapes.assumed)} were assumed; set them with --input-shape."
    return text


def unknown(analysis: Analysis) -> list[str]:
    """A line per reason for which nodes are not understood, naming some."""
    by_reason: dict[str, list[str]] = {}
    for node, reason in analysis.unknown.items():
        by_reason.setdefault(reason, []).append(node)
    return [f"{reason}: {some(nodes)}" for reason, nodes in by_reason.items()]
