"""What notebooks show of results: HTML tables with escaped names, and pandas frames."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxprune._display import TOTALS, long, percent
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.pruning.certificate import Certificate
    from onnxprune.pruning.comparison import Comparison
    from onnxprune.pruning.pipeline import Compression
    from onnxprune.pruning.plan import Plan

_MOST_ROWS = 60


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a pandas frame. Raises UsageError where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("frames need pandas, which is not installed; pip install 'onnxprune[report]'") from error
    return pd.DataFrame([[row[column] for column in columns] for row in rows], columns=list(columns))


def analysis_frame(analysis: Analysis) -> pd.DataFrame:
    """A row per layer."""
    columns = ("name", "op_type", "channels", "prunable", "params", "flops", "memory")
    shares = tuple(f"{metric}_share" for metric in ("params", "flops", "memory"))
    rows = [
        {
            **{column: getattr(layer, column) for column in (*columns, "groups", "pinned")},
            **{share: layer.shares[share.removesuffix("_share")] for share in shares},
        }
        for layer in analysis.layers
    ]
    return frame(rows, (*columns, *shares, "groups", "pinned"))


def plan_frame(plan: Plan) -> pd.DataFrame:
    """A row per axis that loses positions."""
    rows = [
        {"tensor": tensor, "axis": axis, "removed": len(positions), "positions": positions}
        for tensor, axes in plan.removed.items()
        for axis, positions in axes.items()
    ]
    return frame(rows, ("tensor", "axis", "removed", "positions"))


def certificate_frame(certificate: Certificate) -> pd.DataFrame:
    """A row per output, and one for every tensor that differs."""
    columns = ("name", "node", "absolute", "relative", "passed")
    shown = dict.fromkeys((*certificate.outputs, *certificate.failures))
    return frame([{column: getattr(o, column) for column in columns} for o in shown], columns)


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """A row per layer, with each cost before and after."""
    costs = ("channels", "params", "flops", "memory")
    when = ("before", "after")
    rows = [
        {
            "name": layer.name,
            "op_type": layer.op_type,
            **{f"{cost}_{w}": getattr(getattr(layer, w), cost) for cost in costs for w in when},
        }
        for layer in comparison.layers
    ]
    return frame(rows, ("name", "op_type", *(f"{cost}_{w}" for cost in costs for w in when)))


def analysis_html(analysis: Analysis) -> str:
    """The layers, largest first if there are many, and the totals."""
    layers = sorted(analysis.layers, key=lambda layer: -layer.flops) if len(analysis.layers) > _MOST_ROWS else None
    rows = [
        (
            layer.name,
            layer.op_type,
            f"{layer.prunable} of {layer.channels}",
            long(layer.params),
            long(layer.flops),
            percent(layer.shares["flops"]),
            long(layer.memory, "B"),
            "; ".join(layer.pinned),
        )
        for layer in (layers or analysis.layers)[:_MOST_ROWS]
    ]
    heads = ("layer", "op", "may go", "parameters", "MACs", "of all", "memory", "pinned because")
    known = [(analysis.totals[key], *words) for key, words in TOTALS.items() if key in analysis.totals]
    totals = ", ".join(f"{long(total, unit)} {title}" for total, title, unit in known)
    return _table(heads, rows, f"{len(analysis.layers)} layers: {totals}", len(analysis.layers), text=(0, 1, 7))


def plan_html(plan: Plan) -> str:
    """The settings, and the totals before and after."""
    axes = sum(len(of_tensor) for of_tensor in plan.removed.values())
    settings = ", ".join(
        f"{name} {value if isinstance(value, (str, int, float)) else json.dumps(value)}"
        for name, value in plan.settings.items()
    )
    caption = f"Plan: {axes} axes of {len(plan.removed)} tensors lose positions" + (
        f" ({settings})" if settings else ""
    )
    return _table(("", "before", "after", "removed"), _total_rows(plan.before, plan.after), caption)


def certificate_html(certificate: Certificate) -> str:
    """The verdict, and how far each output is off, and whatever else differs."""
    shown = dict.fromkeys((*certificate.outputs, *certificate.failures))
    rows = [(o.name, o.node, f"{o.absolute:.1e}", f"{o.relative:.1e}") for o in shown]
    caption = " ".join(certificate.sentences)
    return _table(("tensor", "node", "largest difference", "of its spread"), rows, caption, len(rows))


def comparison_html(comparison: Comparison) -> str:
    """The totals, and every layer before and after."""
    rows = [
        (
            layer.name,
            layer.op_type,
            _change(layer.before.channels, layer.after.channels),
            _change(layer.before.params, layer.after.params),
            _change(layer.before.flops, layer.after.flops),
            _change(layer.before.memory, layer.after.memory, "B"),
        )
        for layer in comparison.layers[:_MOST_ROWS]
    ]
    totals = _table(("", "before", "after", "removed"), _total_rows(comparison.before, comparison.after), "Totals")
    heads = ("layer", "op", "channels", "parameters", "MACs", "memory")
    return totals + _table(heads, rows, "Layers", len(comparison.layers), text=(0, 1))


def compression_html(compression: Compression) -> str:
    """What was removed where, and the certificate."""
    from onnxprune.pruning.comparison import compare

    certificate = compression.certificate
    proof = (
        "<p>No certificate: the result was not verified.</p>" if certificate is None else certificate_html(certificate)
    )
    return comparison_html(compare(compression.analysis, compression.plan)) + proof


def _total_rows(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, ...]]:
    return [
        (
            title,
            long(before[key], unit),
            long(after[key], unit),
            percent(1 - after[key] / before[key]) if before[key] else "–",
        )
        for key, (title, unit) in TOTALS.items()
        if key in before and key in after
    ]


def _change(before: float, after: float, unit: str = "") -> str:
    return long(before, unit) if before == after else f"{long(before, unit)} → {long(after, unit)}"


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str,
    count: int | None = None,
    text: Sequence[int] = (0,),
) -> str:
    """A table with escaped cells; ``text`` are the columns that are not numbers, ``count`` the rows that there are."""
    align = ["left" if index in text else "right" for index in range(len(heads))]
    head = "".join(f'<th style="text-align:{a}">{html.escape(h)}</th>' for a, h in zip(align, heads, strict=True))
    shown = [
        "<tr>"
        + "".join(f'<td style="text-align:{a}">{html.escape(cell)}</td>' for a, cell in zip(align, row, strict=True))
        + "</tr>"
        for row in rows
    ]
    more = "" if count is None or count <= len(shown) else f"<p>and {count - len(shown)} more; see to_pandas()</p>"
    return (
        f'<table><caption style="caption-side:top;text-align:left">{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(shown)}</tbody></table>{more}"
    )
