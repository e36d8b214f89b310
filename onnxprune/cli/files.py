"""Output files: refused before the work begins where they cannot be written, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.errors import OutputError
from onnxprune.errors import ModelError, PlanError, UsageError
from onnxprune.ir.files import check_regular, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from onnxprune.ir.model import Model
    from onnxprune.pruning.plan import Plan


def check_output(path: Path, inputs: tuple[Path, ...], *, force: bool = False) -> None:
    """See whether ``path`` can be written.

    Raises:
        UsageError: it is one of the inputs (unless ``force``), a folder, a device, or in no writable folder.
    """
    folder = path.parent
    if not folder.exists():
        raise UsageError(f"cannot write {path}: the folder {folder} does not exist; create it first")
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: {folder} is not a folder")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; give the name of a file")
    try:
        check_regular(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {path}: the folder {folder} is read-only; choose another")
    if not force and any(path.resolve() == source.resolve() or _same_file(path, source) for source in inputs):
        raise UsageError(f"{path} is an input; give another name, or allow it to be replaced with --force")


def check_distinct(path: Path, other: Path) -> None:
    """Raise UsageError if two outputs are one."""
    if path.resolve() == other.resolve() or _same_file(path, other):
        raise UsageError(f"{path} is named for two outputs; give another name for one of them")


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def save_model(model: Model, path: Path, *, force: bool = False) -> None:
    """Write a model. Raises OutputError if that fails."""
    try:
        model.save(path, overwrite_input=force)
    except ModelError as error:
        raise OutputError(str(error)) from error


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan. Raises OutputError if that fails."""
    try:
        plan.save(path)
    except PlanError as error:
        raise OutputError(str(error)) from error


def save_text(text: str, path: Path) -> None:
    """Write a text file. Raises OutputError if that fails."""
    try:
        write_text(text, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def save_plot(figure: Figure, path: Path) -> None:
    """Write a plot. Raises OutputError if that fails."""
    from onnxprune.report.figures import save

    try:
        save(figure, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
