"""What all runs of an exploration work on: a description that can be sent, and what a process makes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.data.tasks import AUTO
from onnxprune.errors import ResultsError
from onnxprune.exploration.judging import Judge, judge_for
from onnxprune.ir.digest import model_digest
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, load
from onnxprune.ir.sampling import Rounds

if TYPE_CHECKING:
    from onnxprune.data import Data
    from onnxprune.data.samples import Samples
    from onnxprune.latency.model import LatencyProfile

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes by input name."""


def default_rounds() -> Rounds:
    """At most 50 rounds and, for large models, two seconds (but no fewer than ten rounds)."""
    return Rounds(seconds=2.0)


@dataclass(frozen=True)
class Subject:
    """A model, data, and how to measure; small enough to be sent with every run.

    Attributes:
        model: path of the model, which every worker has to see.
        data: SPEC of the data, likewise.
        model_digest: of the model, data_digest: of the data; a worker that sees others refuses to work.
        engine: how latencies are measured.
        rounds: how long; None leaves latencies out.
        keep: folder for the pruned models, or None.
        input_shapes: for inputs with symbolic dimensions.
        task: by whose measure answers are compared, where no labels judge.
    """

    model: str
    data: str
    model_digest: str = ""
    data_digest: str = ""
    engine: Engine = field(default_factory=Engine)
    rounds: Rounds | None = None
    keep: str | None = None
    input_shapes: Shapes = ()
    task: str = AUTO

    @property
    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """The input shapes that were given, None if there are none."""
        return dict(self.input_shapes) or None


@dataclass(frozen=True)
class Opened:
    """A subject in one process: all that its runs share, and the digest of the model."""

    model: Model
    analysis: Analysis
    data: Data
    judge: Judge
    digest: str
    engine: Engine

    @cached_property
    def times(self) -> LatencyProfile:
        """What layers cost on this machine, for runs that reduce latency; measured once, and kept on disk."""
        from onnxprune.latency.machine import LocalMachine
        from onnxprune.latency.profile import profile_latency

        return profile_latency(self.analysis, machine=LocalMachine(self.engine))

    @cached_property
    def calibration(self) -> Samples:
        """Training samples for criteria that look at data."""
        from onnxprune.data.samples import collect

        return collect(self.data, self.model)


def described(
    model: str | os.PathLike[str],
    data: str,
    *,
    engine: Engine,
    rounds: Rounds | None,
    keep: Path | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    task: str = AUTO,
) -> Subject:
    """A subject with absolute paths and the digests of what is there.

    Raises:
        ModelError: the model cannot be read.
        DataError: the data cannot be read, or does not fit the model.
    """
    shapes = tuple((name, tuple(shape)) for name, shape in (input_shapes or {}).items())
    path, spec = str(Path(model).absolute()), absolute_spec(data)
    folder = None if keep is None else str(keep.absolute())
    bare = Subject(path, spec, engine=engine, rounds=rounds, keep=folder, input_shapes=shapes, task=task)
    opened = open_subject(bare)
    return replace(bare, model_digest=opened.digest, data_digest=opened.data.digest)


def absolute_spec(data: str) -> str:
    """The SPEC with an absolute path, so that processes elsewhere understand it; ``module:function`` stays."""
    source, mark, options = data.partition("?")
    path = Path(source).expanduser()
    return f"{path.absolute()}{mark}{options}" if path.exists() else data


def open_subject(subject: Subject) -> Opened:
    """Model and data, read once per process.

    Raises:
        ResultsError: they are not those that the exploration began with.
        ModelError: the model cannot be read.
        DataError: the data cannot be read.
    """
    opened = _opened(subject.model, subject.data, subject.input_shapes, subject.engine, subject.task)
    if subject.model_digest and opened.digest != subject.model_digest:
        raise ResultsError(f"{subject.model} has changed, or is another file where this run is made; begin anew")
    if subject.data_digest and opened.data.digest != subject.data_digest:
        raise ResultsError(f"the data {subject.data} has changed, or is other data where this run is made; begin anew")
    return opened


@lru_cache(maxsize=1)
def _opened(model: str, data: str, shapes: Shapes, engine: Engine, task: str) -> Opened:
    from onnxprune.data import read_data

    loaded = load(model)
    analysis = analyze(loaded, dict(shapes) or None)
    samples = read_data(data, loaded)
    return Opened(loaded, analysis, samples, judge_for(loaded, samples, task), model_digest(loaded), engine)
