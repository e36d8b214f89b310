"""The figures of a report as plain data: what the page's script draws and lists.

Columns instead of rows keep the page of a large model small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from onnxprune._display import compact, shorten_all
from onnxprune.analysis.cost import METRICS
from onnxprune.report.content import Report, ReportedModel
from onnxprune.report.lanes import couplings, lanes


def payload(report: Report) -> dict[str, Any]:
    """Everything that the charts, the table and the layer details need, fit for JSON."""
    original = report.original
    return {
        "model": original.name,
        "layers": _layers(report),
        "metrics": _metrics(report),
        "memory": _memory(report),
        "coupling": _coupling(original),
        "candidates": [candidate.subject.name for candidate in report.candidates],
        "tradeoff": _tradeoff(report),
    }


def _tradeoff(report: Report) -> dict[str, Any] | None:
    if report.results is None:
        return None
    from onnxprune.report.tradeoff import tradeoff

    shown = [(c.subject.name, c.plan) for c in report.candidates if c.plan is not None]
    return tradeoff(report.results, report.original.analysis, shown)


def _layers(report: Report) -> dict[str, Any]:
    layers = report.original.analysis.layers
    names = labels([(layer.name, layer.op_type) for layer in layers])
    return {
        "name": [layer.name for layer in layers],
        "label": shorten_all(names, _WIDE),
        "narrow": shorten_all(names, _NARROW),
        "op": [layer.op_type for layer in layers],
        "channels": [layer.channels for layer in layers],
        "prunable": [layer.prunable for layer in layers],
        "left": [[change.after.channels for change in c.comparison.layers] for c in report.candidates],
    }


_WIDE, _NARROW = 32, 22
"""Characters of a layer's name, on screens and on phones."""


def labels(layers: Sequence[tuple[str, str]]) -> list[str]:
    """Short names where they still tell the layers apart: without repeated parts and the operator at the end."""
    short = [compact(name).removesuffix(f"/{op_type}") for name, op_type in layers]
    count = Counter(short)
    return [label if label and count[label] == 1 else name for label, (name, _) in zip(short, layers, strict=True)]


def _metrics(report: Report) -> dict[str, Any]:
    """Per metric, what each layer costs before, and after for every candidate."""
    layers = report.original.analysis.layers
    found: dict[str, Any] = {}
    for metric in METRICS:
        found[metric] = {
            "before": [getattr(layer, metric) for layer in layers],
            "after": [[getattr(change.after, metric) for change in c.comparison.layers] for c in report.candidates],
        }
    if report.original.layer_times:
        names = [layer.name for layer in layers]
        found["time"] = {
            "before": _times(report.original, names),
            "after": [_times(c.subject, names) for c in report.candidates],
        }
    return found


def _times(subject: ReportedModel, names: Sequence[str]) -> list[float | None]:
    """Seconds of every layer; None where the runtime reports no node of that name."""
    times = subject.layer_times
    return [None if name not in times else round(times[name], 8) for name in names]


def _memory(report: Report) -> list[dict[str, Any]]:
    """Live bytes while each node executes, for the original and every candidate."""
    original = _profile("original", report.original)
    original["nodes"] = [f"{node.op_type} {node.name}" for node in report.original.analysis.graph.nodes]
    return [original, *(_profile(c.subject.name, c.subject) for c in report.candidates)]


def _profile(name: str, subject: ReportedModel) -> dict[str, Any]:
    costs = subject.analysis.costs
    return {"name": name, "bytes": [round(value) for value in costs.liveness.profile(costs.full).tolist()]}


def _coupling(subject: ReportedModel) -> dict[str, Any]:
    """Per layer its groups and pins (as indices into lists without repetitions), and the lanes of the drawing."""
    layers = couplings(subject.analysis)
    pins: dict[tuple[str, str, str], int] = {}
    return {
        "makes": [layer.makes for layer in layers],
        "reads": [layer.reads for layer in layers],
        "pins": [[pins.setdefault(pin, len(pins)) for pin in layer.pins] for layer in layers],
        "notes": [layer.note for layer in layers],
        "reasons": list(pins),
        "lanes": [(lane.group, lane.first, lane.last, lane.height) for lane in lanes(layers)],
        "groups": {
            group.index: {"atoms": group.atoms, "approximate": group.approximate} for group in subject.analysis.groups
        },
    }
