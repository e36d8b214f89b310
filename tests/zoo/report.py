"""The zoo's table as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from .measuring import PACKAGE, SHARE, Row

_HEAD = """\
# The zoo

What onnxprune makes of {count} real models, all by the same commands: `channels={share}` takes that share of every
group's channels, as other pruners' ratio does. This page is written by `python -m tests.zoo.study`; the figures
are in [{figures}]({figures}).

- *prunable*: the share of all multiply-accumulates (MACs) in filters that may go.
- *left*: the share of MACs that is left.
- *s*: seconds of processor time for analyze + plan + apply; the certificate comes on top.
- *certificate*: the largest difference between the outputs of the pruned model and those of the masked original,
  relative to the largest output; ≈ where pruning crosses a normaliser (see *approximate* in the README). It
  passes at 1e-4, and at 1e-3 where approximate. All pruned files passed onnx.checker and ran in onnxruntime, and
  their weights equal the original ones without the removed positions.
- *stays*: what keeps channels that may not go, with their share of the MACs.
"""


def page(rows: Sequence[Row], figures: str = "zoo.csv") -> str:
    """The whole page: totals, failures, and a table per origin."""
    parts = [_HEAD.format(count=len(rows), share=SHARE, figures=figures), _totals(rows)]
    failed = [row for row in rows if row.error]
    if failed:
        lines = "\n".join(f"- {row.origin}/{row.model}: {_cell(row.error)}" for row in failed)
        parts.append(f"## Failures\n\n{lines}\n")
    for origin in _origins(rows):
        good = sorted((row for row in rows if row.origin == origin and not row.error), key=lambda row: row.model)
        parts.append(f"## {_title(origin)}\n\n{_table(good)}")
    return "\n".join(parts)


def _origins(rows: Sequence[Row]) -> list[str]:
    return sorted({row.origin for row in rows}, key=lambda origin: (origin != PACKAGE, origin))


def _title(origin: str) -> str:
    return {PACKAGE: "Models that packages ship", "keras": "Keras"}.get(origin, f"PyTorch, {origin} exporter")


def _totals(rows: Sequence[Row]) -> str:
    lines = [
        "| | models | exact | approximate | untouched | failed | median left | median prunable | median s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for origin in _origins(rows):
        here = [row for row in rows if row.origin == origin]
        good = [row for row in here if not row.error]
        approximate, untouched = sum(row.approximate for row in good), sum(row.left == 1 for row in good)
        medians = (
            f"{median(row.left for row in good):.3f} | {median(row.prunable for row in good):.1%} | "
            f"{median(row.seconds for row in good):.2f}"
            if good
            else "| |"
        )
        lines.append(
            f"| {_title(origin)} | {len(here)} | {len(good) - approximate - untouched} | {approximate} | {untouched} | "
            f"{len(here) - len(good)} | {medians} |"
        )
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| model | opset | nodes | M params | G MACs | prunable | left | s | certificate | stays |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        certificate = "nothing went" if row.left == 1 else f"{'≈ ' if row.approximate else ''}{row.difference:.0e}"
        lines.append(
            f"| {row.model} | {row.opset} | {row.nodes} | {row.params / 1e6:.2f} | {row.flops / 1e9:.3f} | "
            f"{row.prunable:.1%} | {row.left:.3f} | {row.seconds:.2f} | {certificate} | {_cell(row.stays)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
