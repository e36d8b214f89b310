"""The same as static plots, by matplotlib: for papers, READMEs, and screens without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune._display import shown
from onnxprune.analysis.cost import METRICS
from onnxprune.errors import UsageError
from onnxprune.exploration.pareto import beats
from onnxprune.ir.files import write_bytes
from onnxprune.report.errors import missing
from onnxprune.report.payload import labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.exploration.results import Results
    from onnxprune.exploration.runs import Figures
    from onnxprune.pruning.comparison import Comparison
    from onnxprune.splitting.weighing import CutCost, Weighing

FORMATS = ("png", "svg", "pdf")
_TITLES = {"params": "parameters", "flops": "MACs", "memory": "memory (bytes)"}
_RESOURCES = {
    "params": "parameters",
    "flops": "MACs",
    "memory": "memory (bytes)",
    "latency": "latency (s)",
    "size": "file size (bytes)",
}
_OBJECTIVES = {"wire": "the wire", "macs": "MACs of the head", "latency": "latency"}
_PALE, _STRONG, _INK = "#b9c4d3", "#0b6bcb", "#1b2330"
_MODES = ("#0b6bcb", "#d9731a", "#137a4b", "#b3261e")
_FEW = 40
"""Layers whose names there is room for."""
_STYLE: Any = {
    "axes.titlesize": 10,
    "font.size": 9,
    "svg.hashsalt": "onnxprune",
    "svg.fonttype": "none",
}
"""Salted, so that the same plot is the same file; text stays text, which is small and can be searched."""


def complexity(analysis: Analysis) -> Figure:
    """Each layer's share of all parameters, MACs and memory, in percent. Raises UsageError without matplotlib."""
    layers = analysis.layers
    values = {metric: np.array([100 * layer.shares[metric] for layer in layers]) for metric in METRICS}
    titles = {metric: f"% of {_TITLES[metric].removesuffix(' (bytes)')}" for metric in METRICS}
    names = labels([(layer.name, layer.op_type) for layer in layers])
    return _per_layer(names, [(titles[metric], [(values[metric], _STRONG, None)]) for metric in METRICS])


def changes(comparison: Comparison) -> Figure:
    """Parameters, MACs and memory of each layer, before and after. Raises UsageError without matplotlib."""
    panels = []
    for metric in METRICS:
        before = np.array([getattr(layer.before, metric) for layer in comparison.layers], dtype=np.float64)
        after = np.array([getattr(layer.after, metric) for layer in comparison.layers], dtype=np.float64)
        panels.append((_TITLES[metric], [(before, _PALE, "original"), (after, _STRONG, "pruned")]))
    return _per_layer(labels([(layer.name, layer.op_type) for layer in comparison.layers]), panels)


def tradeoff(results: Results, resource: str | None = None) -> Figure:
    """Accuracy over a resource: every run, coloured by mode, and the Pareto front.

    Args:
        results: of an exploration.
        resource: one of ``params``, ``flops``, ``memory``, ``latency`` and ``size``; latency if not given, or MACs
            where no latency was measured.

    Raises:
        UsageError: an unknown resource, or matplotlib is missing.
    """
    over = resource or ("latency" if "latency" in results.resources else "flops")
    front = results.pareto((over,))
    figure = _figure(5.6, 3.8)
    axes = figure.add_subplot()
    runs = [run for run in results.done if run.accuracy is not None and getattr(run, over) is not None]
    modes = sorted({run.mode for run in runs})
    for number, mode in enumerate(modes):
        own = [run for run in runs if run.mode == mode]
        colour = _MODES[number % len(_MODES)]
        axes.scatter(
            _column(own, over), _column(own, "accuracy"), s=16, c=colour, label=_plain(mode), alpha=0.75, linewidths=0
        )
    original = results.original
    if original is not None and (original.accuracy is None or getattr(original, over) is None):
        original = None
    best: list[Figures] = [*front]
    if original is not None and not any(beats(run, original, (over,)) for run in runs):
        best.append(original)  # nothing beats it: the front ends there
    points = sorted(zip(_column(best, over), _column(best, "accuracy"), strict=True))
    axes.plot([x for x, _ in points], [y for _, y in points], "--", color=_INK, linewidth=1, label="Pareto front")
    if original is not None:
        axes.scatter(
            _column([original], over), _column([original], "accuracy"), marker="D", s=36, c=_INK, label="original"
        )
    _trim(axes)
    axes.set_xlabel(_RESOURCES[over])
    axes.set_ylabel(_plain(results.about.score) if results.about.score != "r2" else "R²")
    axes.xaxis.set_major_formatter(_engineering())
    axes.grid(color="#e3e7ed", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    return figure


def cuts(weighing: Weighing) -> Figure:
    """What crosses at every cut, and the latency, or the head's MACs where that is not known.

    Marked are the cuts that no other beats in all that is known of them, the best for what both axes say, and all in
    the head or all in the tail.

    Raises:
        UsageError: matplotlib is missing.
    """
    over = "latency" if "latency" in weighing.objectives else "macs"
    figure = _figure(5.6, 4.4)
    axes = figure.add_subplot()

    def draw(rows: Sequence[CutCost], label: str, **look: Any) -> None:
        x, y = ([weighing.value(row, name) for row in rows] for name in ("wire", over))
        axes.scatter(x, y, label=_plain(label), **look)

    real = [row for row in weighing.cuts if row.cut is not None]
    draw([row for row in real if not row.best], "cuts", s=14, c=_PALE, linewidths=0)
    draw([row for row in real if row.best], "no other beats them", s=22, c=_STRONG, linewidths=0)
    for number, name in enumerate(("wire", over)):
        best = weighing.best(name)
        if best is not None:
            label = f"best for {_OBJECTIVES[name]}: {_short(', '.join(best.tensors))}"
            draw([best], label, s=90, facecolors="none", edgecolors=_MODES[1 + 2 * number], marker="os"[number])
    for row in weighing.cuts[len(real) :]:
        if row.place == "cloud":
            draw([row], "all in the tail", s=36, c=_INK, marker="D", clip_on=False)
        else:
            axes.axhline(weighing.value(row, over), color=_INK, linewidth=1, linestyle="--", label="all in the head")
    _trim(axes)
    axes.set_xscale("log")
    coding = "" if weighing.setting.coding == "plain" else f" ({weighing.setting.coding})"
    axes.set_xlabel(f"bytes on the wire{coding}")
    axes.set_ylabel(_RESOURCES["latency"] if over == "latency" else "MACs of the head")
    axes.xaxis.set_major_formatter(_engineering())
    if over == "macs":
        axes.set_ylim(bottom=0)
    else:
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter(_engineering())
    axes.grid(color="#e3e7ed", linewidth=0.6)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the suffix of the path is the format.

    Raises:
        UsageError: it is none of ``FORMATS``.
        OSError: the file cannot be written.
    """
    import matplotlib

    kind = plot_format(path)
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        figure.savefig(buffer, format=kind, dpi=160, metadata=dates)
    write_bytes(buffer.getvalue(), path)


def plot_format(path: Path) -> str:
    """The format that a file's name asks for. Raises UsageError if that is none that can be written."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(f"cannot plot to {path}: give a name that ends with .{', .'.join(FORMATS)}")
    return kind


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing(error) from error
    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def _per_layer(names: Sequence[str], panels: Sequence[tuple[str, Sequence[tuple[Any, str, str | None]]]]) -> Figure:
    """A panel per metric with bars per layer: in rows with names, or, if there are many, in narrow columns."""
    few = len(names) <= _FEW
    figure = _figure(7.2, 0.9 + 0.19 * len(names)) if few else _figure(7.2, 5.0)
    every = figure.subplots(1, len(panels), sharey=True) if few else figure.subplots(len(panels), 1, sharex=True)
    at = np.arange(len(names))
    for axes, (title, series) in zip(np.atleast_1d(every).tolist(), panels, strict=True):
        for number, (values, colour, label) in enumerate(series):
            if few:
                axes.barh(at, values, height=0.78 - 0.34 * number, color=colour, label=label)
            else:
                axes.fill_between(np.append(at, len(at)), np.append(values, 0), step="post", color=colour, label=label)
        axes.set_title(title, loc="left")
        _finish(axes, names, few)
    if panels[0][1][0][2] is not None:
        handles, titles = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, titles, loc="outside upper right", ncols=len(titles), frameon=False)
    return figure


def _finish(axes: Axes, names: Sequence[str], few: bool) -> None:
    _trim(axes)
    if few:
        axes.set_yticks(np.arange(len(names)), [_plain(_short(name)) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(_engineering())
        axes.grid(axis="x", color="#e3e7ed", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    else:
        axes.set_xlim(0, len(names))
        axes.set_ylim(0)
        axes.yaxis.set_major_formatter(_engineering())
        axes.grid(axis="y", color="#e3e7ed", linewidth=0.6)
        if axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
            axes.set_xlabel("layers in order of execution")


def _trim(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _engineering() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def _short(name: str, width: int = 34) -> str:
    return name if len(name) <= width else f"{name[: width // 2 - 1]}…{name[-width // 2 :]}"


def _plain(text: str) -> str:
    """Text in which nothing is a formula."""
    return shown(text).replace("$", r"\$")


def _column(runs: Sequence[Any], name: str) -> list[float]:
    return [float(getattr(run, name)) for run in runs]
