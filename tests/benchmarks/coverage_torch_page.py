"""The answers of `coverage_torch` as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping

ORIGIN = "origin"
PRUNED = "onnxprune, pruned"
"""Its module of the model without half of all channels."""
PEERS = ("onnx2torch", "onnx2pytorch", "onnx2fx")
COLUMNS = ("onnxprune", PRUNED, *PEERS)
YES = "yes"

Answers = Mapping[str, str]

_INTRODUCTION = """\
# Reading ONNX files into PyTorch

Written by `python -m tests.benchmarks.coverage_torch`. "yes": the module computes what onnxruntime does, within 1e-4
of the largest value (or of 0.01, as onnxruntime's sigmoid is off near zero), and every parameter gets a finite gradient
in training mode. Otherwise the exception, or the difference. *pruned*: the same of the file that `channels=0.5` leaves.
onnx2torch 1.5.15, onnx2pytorch 0.6.0 and onnx2fx 0.0.1 with PyTorch 2.14.1 read the original file; "–": not asked.
"""
_TITLES = {"models": "Reference models", "package": "Models that packages ship"}


def page(rows: Mapping[tuple[str, str], Answers]) -> str:
    """Totals, and a table per origin."""
    origins = sorted({origin for origin, _ in rows}, key=lambda origin: (origin not in _TITLES, origin))
    here = {origin: {name: found for (o, name), found in sorted(rows.items()) if o == origin} for origin in origins}
    parts = [_INTRODUCTION, _table("", {_title(origin): _counts(here[origin]) for origin in origins})]
    parts += [f"## {_title(origin)}\n\n{_table('model', here[origin])}" for origin in origins]
    return "\n".join(parts)


def _title(origin: str) -> str:
    return _TITLES.get(origin, f"PyTorch, {origin} exporter")


def _counts(rows: Mapping[str, Answers]) -> Answers:
    """How many of those that were asked said yes."""
    counts: dict[str, str] = {}
    for column in COLUMNS:
        found = [answers[column] for answers in rows.values() if column in answers]
        counts[column] = f"{found.count(YES)} of {len(found)}"
    return counts


def _table(head: str, rows: Mapping[str, Answers]) -> str:
    lines = ["| " + " | ".join((head, *COLUMNS)) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(found.get(c, "–") for c in COLUMNS) + " |" for name, found in rows.items()]
    return "\n".join(lines) + "\n"
