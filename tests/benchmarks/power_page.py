"""The figures of the certificate's power, and the page that shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One model. Of ``drawn`` faults some were ``refused`` by onnxruntime, some ``equivalent``; the others count.

    ``by_outputs``, ``by_tensors`` and ``by_certificate`` say how many of those ``faults`` were noticed. ``hidden``
    counts those that the certificate passed and that moved no tensor under any inputs tried, although their node
    alone computes something else. ``kinds`` holds, as JSON, the four counts per kind.
    """

    model: str
    drawn: int = 0
    refused: int = 0
    equivalent: int = 0
    faults: int = 0
    by_outputs: int = 0
    by_tensors: int = 0
    by_certificate: int = 0
    hidden: int = 0
    seconds: float = 0.0
    unnoticed: str = ""
    error: str = ""
    kinds: str = ""


_HEAD = """\
# The power of the certificate

A check is worth what it catches. Half of all channels of a model go; then single faults are put into the pruned file,
the kinds that wrong shrinking makes, and each is shown to two checks: the graph's outputs alone (they differ from the
masked original's by more than 1e-4 of the largest), and the certificate. This page is written by
`python -m tests.benchmarks.power`; the figures are in [power.csv](power.csv).

- *drawn*: so many faults; *refused*: onnxruntime does not even run the file (both checks say so; not counted further).
- *equivalent*: nothing moves, neither any tensor of the model under several laws of inputs nor what the node that reads
  the faulty constant makes of strong inputs fed to it; no check can notice that, and none should.
- *faults*: the others. *outputs*: how many of them the outputs alone show; *tensors*: how many change a tensor that the
  certificate compares; *certificate*: those, and what it notices by comparing the weights themselves.
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page: totals, kinds, models, and every fault that passed."""
    good = sorted((row for row in rows if not row.error), key=lambda row: row.model)
    parts = [_HEAD, _kinds(good), _models(good)]
    passed = [f"- {row.model}: {fault}" for row in good for fault in row.unnoticed.split("; ") if fault]
    if passed:
        parts.append("## Faults that the certificate passed\n\n" + "\n".join(passed) + "\n")
    failed = [f"- {row.model}: {row.error}" for row in rows if row.error]
    if failed:
        parts.append("## Not measured\n\n" + "\n".join(failed) + "\n")
    return "\n".join(parts)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "–"


def _kinds(rows: Sequence[Row]) -> str:
    totals: dict[str, list[int]] = {}
    for row in rows:
        for kind, counts in json.loads(row.kinds or "{}").items():
            into = totals.setdefault(kind, [0] * len(counts))
            totals[kind] = [a + b for a, b in zip(into, counts, strict=True)]
    lines = ["| kind of fault | faults | outputs | tensors | certificate |", "|---|--:|--:|--:|--:|"]
    everything = [sum(counts[i] for counts in totals.values()) for i in range(4)]
    for kind, (count, *noticed) in [*sorted(totals.items()), ("**all**", everything)]:
        lines.append(f"| {kind} | {count} | " + " | ".join(_share(part, count) for part in noticed) + " |")
    return "\n".join(lines) + "\n"


def _models(rows: Sequence[Row]) -> str:
    lines = [
        "| model | drawn | refused | equivalent | faults | outputs | tensors | certificate |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.model} | {row.drawn} | {row.refused} | {row.equivalent} | {row.faults} | "
        f"{_share(row.by_outputs, row.faults)} | {_share(row.by_tensors, row.faults)} | "
        f"{_share(row.by_certificate, row.faults)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
