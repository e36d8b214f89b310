"""Output files: refused before the work begins where they cannot be written, and written whole or not at all."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onnxprune.cli.errors import OutputError
from onnxprune.cli.units import parse_quantity
from onnxprune.errors import ModelError, OnnxPruneError, PlanError, UsageError
from onnxprune.ir.files import check_regular, same_place, write_text
from onnxprune.ir.pairs import may_be_data_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from onnxprune.cli.terminal import Terminal
    from onnxprune.ir.model import Model
    from onnxprune.pruning.plan import Plan


STDOUT = Path("-")
"""The output that is no file."""
_MESSAGE_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class _Read:
    """A file, or folder of data, that a command reads; ``of`` is the model whose weights it holds, if it does."""

    path: Path
    of: Path | None = None

    def is_hit_by(self, path: Path) -> bool:
        """Whether writing to a path would change it."""
        if same_place(self.path, path):
            return True
        inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(self.path), ""))
        return inside and self.path.is_dir() and path.exists()


class Paths:
    """All files that a command reads and writes, told before it begins: none that is written may be another of them.

    Args:
        force: a model that is written may replace an input, but never the weights of one.
        external_data: what ``--external-data`` says of models that are written.
        terminal: gives stdout to a model that is written to ``-``; without it, models go to files only.
    """

    def __init__(
        self, *, force: bool = False, terminal: Terminal | None = None, external_data: str | None = None
    ) -> None:
        self.force = force
        self._shard = _shard_size(external_data)
        self._terminal = terminal
        self._read: list[_Read] = []
        self._written: list[Path] = []
        self._models: list[Path] = []

    def read(self, *paths: Path | None) -> None:
        """Files that are read. Raises UsageError if one is to be written, too."""
        self._add(_Read(path) for path in paths if path is not None)

    def read_models(self, *paths: Path | None) -> None:
        """Models that are read, with their external data. Raises UsageError if one of all these is to be written."""
        self.read(*paths)
        self._add(_Read(data, path) for path in paths if path is not None for data in _external_data(path))

    def read_data(self, *specs: str | None) -> None:
        """The files and folders of data SPECs. Raises UsageError if one is to be written."""
        for spec in specs:
            source = "" if spec is None else spec.partition("?")[0]
            found = Path(source).expanduser()
            if source and not found.exists():
                found = Path(source.partition(":")[0].replace(".", os.sep) + ".py")
            self.read(found if source and found.exists() else None)

    def write(self, *paths: Path | None) -> None:
        """Files that are written.

        Raises:
            UsageError: one is read, holds weights of a model that is read, is another that is written, is a folder or
                device, or is in no folder that can be written to.
        """
        for path in paths:
            if path is not None:
                self._check(path, force=False)
                self._written.append(path)

    def write_model(self, path: Path) -> None:
        """A model that is written, with its external data, in place of a model that may be there.

        Raises:
            UsageError: as for ``write``; an input may be replaced with ``force``.
        """
        if path == STDOUT and self._terminal is not None:
            if self._shard is not None:
                raise UsageError("--external-data needs files; name one with --output")
            self._terminal.leave_stdout()
            return
        if path == STDOUT:
            raise UsageError("this command writes its model to a file, not to stdout; name one with --output")
        self._check(path, force=self.force)
        self._add(_Read(data, path) for data in _external_data(path))
        for other in self._written:
            _check_no_data(other, path)
        self._written.append(path)
        self._models.append(path)

    def save_model(self, model: Model, path: Path) -> None:
        """Write a model. Raises OutputError if that fails."""
        if path == STDOUT and self._terminal is not None:
            _to_stdout(model)
            return
        weights = (read.path for read in self._read if read.of is not None and read.of != path)
        try:
            written = changed(model, sources=(*model.sources, *weights))
            written.save(path, overwrite_input=self.force, external_data=self._shard)
        except ModelError as error:
            raise OutputError(str(error)) from error

    def _add(self, found: Iterator[_Read]) -> None:
        for read in found:
            self._read.append(read)
            for path in self._written:
                _check_not_read(path, read, force=self.force and path in self._models)

    def _check(self, path: Path, *, force: bool) -> None:
        _check_writable(path)
        for read in self._read:
            _check_not_read(path, read, force=force)
        for other in self._written:
            if same_place(path, other):
                raise UsageError(f"{path} is named for two outputs; give another name for one of them")
        for model in self._models:
            _check_no_data(path, model)


def _shard_size(given: str | None) -> float | None:
    """The largest data file in bytes. Raises UsageError."""
    if given is None or given == "one":
        return None if given is None else math.inf
    try:
        size = parse_quantity(given)
    except typer.BadParameter:
        size = 0
    if size <= 0:
        raise UsageError(f"--external-data '{given}' is neither 'one' nor a size; write it like 500M or 2G")
    return size


def _to_stdout(model: Model) -> None:
    if model.file_size >= _MESSAGE_LIMIT:
        raise OutputError("a model of more than 2 GB cannot be written to stdout; name a file")
    sys.stdout.buffer.write(model.to_proto().SerializeToString(deterministic=True))
    sys.stdout.buffer.flush()


def _check_not_read(path: Path, read: _Read, *, force: bool) -> None:
    if not read.is_hit_by(path):
        return
    if read.of is not None:
        raise UsageError(f"{path} holds weights of {read.of}; give another name")
    if not force:
        raise UsageError(f"{path} is an input; give another name, or, for a model, allow it with --force")


def _check_no_data(path: Path, model: Path) -> None:
    if may_be_data_of(path, model):
        raise UsageError(f"{path} is what the weights of {model} may be called; give another name")


def _check_writable(path: Path) -> None:
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


def _external_data(path: Path) -> tuple[Path, ...]:
    """The external data files of a model; none if there is no such model, which whoever reads it says."""
    if not path.is_file():
        return ()
    from onnxprune.ir.model import load

    try:
        return load(path).sources[1:]
    except OnnxPruneError:
        return ()


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
