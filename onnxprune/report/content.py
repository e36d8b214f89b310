"""What a report tells: the model, what became of it, and what was tried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.model import Model
from onnxprune.pruning.comparison import Comparison, compare_models
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    from onnxprune.data.fidelity import Fidelity
    from onnxprune.exploration.results import Results
    from onnxprune.latency.bench import Bench
    from onnxprune.pruning.history import ToldAnswers, ToldPromise
    from onnxprune.pruning.proving import Proof


@dataclass(frozen=True)
class ReportedModel:
    """A model and what is known about it.

    ``digest`` is the SHA-256 of its file (None if it is in memory only), ``file_size`` in bytes; ``layer_times`` are
    seconds under the profiler by layer, empty if they were not measured.
    """

    name: str
    digest: str | None
    file_size: int
    analysis: Analysis
    layer_times: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """A pruned model beside the original.

    ``plan`` tells how it was made, if that is known; ``proof`` how far it is from the masked original, and ``remark``
    what a reader has to know about that (why there is none, say). ``fidelity`` is what is left of its answers where
    that was measured, ``answers`` what its file tells of that and ``promise`` of what is proven, ``steps`` what
    happened to it after the removal, and ``job`` the other options that its file tells of.
    """

    subject: ReportedModel
    comparison: Comparison
    plan: Plan | None = None
    proof: Proof | None = None
    remark: str = ""
    fidelity: Fidelity | None = None
    answers: ToldAnswers | None = None
    promise: ToldPromise | None = None
    steps: tuple[Mapping[str, Any], ...] = ()
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A model, its pruned forms, and the recorded runs of an exploration of it; ``command`` wrote the report.

    ``times`` are those of the original and all candidates in turns, as ``onnxprune.bench`` measures them (or why there
    are none, or None if they were not asked for): the page has whole runs from nowhere else. They were measured on the
    ``machine`` on that ``date``.
    """

    original: ReportedModel
    candidates: tuple[Candidate, ...] = ()
    results: Results | None = None
    command: str = ""
    times: Bench | str | None = None
    machine: str = ""
    date: str = ""


def subject(
    name: str,
    model: Model,
    analysis: Analysis,
    path: Path | None = None,
    layer_times: Mapping[str, float] | None = None,
) -> ReportedModel:
    """A model under a name for readers; ``path`` is its file, if it is in one. Raises OSError."""
    digest = None if path is None else _sha256(path)
    return ReportedModel(name, digest, model.file_size, analysis, layer_times or {})


def candidate(
    original: ReportedModel,
    pruned: ReportedModel,
    plan: Plan | None = None,
    proof: Proof | None = None,
    remark: str = "",
) -> Candidate:
    """A pruned model beside the original. Raises UsageError where it is not a pruned form of that."""
    return Candidate(pruned, compare_models(original.analysis, pruned.analysis, pruned.name, plan), plan, proof, remark)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
