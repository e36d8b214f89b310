"""What a report tells: the model, what became of it, and what was tried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.model import Model
from onnxprune.pruning.certificate import Certificate
from onnxprune.pruning.comparison import Comparison, compare_models
from onnxprune.pruning.plan import Plan
from onnxprune.report.timing import Times

if TYPE_CHECKING:
    from onnxprune.exploration.results import Results


@dataclass(frozen=True)
class ReportedModel:
    """A model and what is known about it.

    ``digest`` is the SHA-256 of its file (None if it is in memory only), ``file_size`` in bytes; ``times`` is empty if
    time was not measured.
    """

    name: str
    digest: str | None
    file_size: int
    analysis: Analysis
    times: Times


@dataclass(frozen=True)
class Candidate:
    """A pruned model beside the original.

    ``plan`` tells how it was made, if that is known; ``certificate`` how far it is from the masked original, and
    ``remark`` what a reader has to know about that (why there is none, say). ``job`` holds the other options that its
    file tells of.
    """

    subject: ReportedModel
    comparison: Comparison
    plan: Plan | None
    certificate: Certificate | None
    remark: str
    job: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A model, its pruned forms, and the recorded runs of an exploration of it; ``command`` wrote the report."""

    original: ReportedModel
    candidates: tuple[Candidate, ...] = ()
    results: Results | None = None
    command: str = ""


def subject(
    name: str, model: Model, analysis: Analysis, path: Path | None = None, times: Times | None = None
) -> ReportedModel:
    """A model under a name for readers; ``path`` is its file, if it is in one. Raises OSError."""
    digest = None if path is None else _sha256(path)
    return ReportedModel(name, digest, model.file_size, analysis, times or Times())


def candidate(
    original: ReportedModel,
    pruned: ReportedModel,
    plan: Plan | None = None,
    certificate: Certificate | None = None,
    remark: str = "",
    job: Mapping[str, Any] | None = None,
) -> Candidate:
    """A pruned model beside the original. Raises UsageError where it is not a pruned form of that."""
    comparison = compare_models(original.analysis, pruned.analysis, pruned.name)
    return Candidate(pruned, comparison, plan, certificate, remark, job or {})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
