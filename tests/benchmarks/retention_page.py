"""The page of the retention study: tables and a plot, from the rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .retention_finetuned import section as finetuned

if TYPE_CHECKING:
    from .retention import Row

PAGE, PLOT, PHOTOS = Path("docs/retention.md"), Path("docs/retention.svg"), Path("docs/retention_photos.csv")
BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_HEAD = """# Accuracy right after pruning

What is left of a trained network when channels go and nothing is trained afterwards: no labels, no gradients, a few
seconds. Written by `python -m tests.benchmarks.retention`, which goes on where it stopped; all rows are in
[retention.csv](retention.csv).

Networks in the spirit of ResNet-20, MobileNetV2 and VGG-16 (`tests/benchmarks/accuracy_networks.py`), trained on
Fashion-MNIST, lose a share of their multiply-accumulates (MACs). Figures are points of accuracy lost on 5,000 test
images (standard error about 0.4 points; negative: gained); differences between neighbours within a point are noise.
Calibration is with 256 training images; labels are given to Torch-Pruning's Taylor criterion only. The refit is
`--compensate refit`: ridge regression of every layer on the original's outputs. onnxsim gets the networks with
BatchNormalization folded (it does not prune through it), and "refit" is its `apply_pruning_finetune`, which solves
for Gemm and MatMul. Peers come as close below the MACs as one ratio for all channels lets them. Empty cells were not
run.

"""


def write(rows: Sequence[Row]) -> None:
    """Write page and plot."""
    good = [row for row in rows if not math.isnan(row.accuracy)]
    networks = list(dict.fromkeys(row.case.network for row in good))
    text = [_HEAD, "![Points lost against MACs removed](retention.svg)\n\n## By budget\n\n"]
    for network in networks:
        own = [row for row in good if row.case.network == network]
        text.append(f"### {network} (accuracy {own[0].base:.2%})\n\n{_by_budget(own)}\n")
    text.append("## Criteria and allocations, with the refit\n\nPoints lost; in brackets without the refit.\n\n")
    for network in networks:
        text.append(f"### {network}\n\n{_by_criterion([r for r in good if r.case.network == network])}\n")
    if PHOTOS.exists():
        text.append(_photos())
    text.append(finetuned())
    PAGE.write_text("".join(text), encoding="utf-8")
    _plot(good, networks)


def _label(row: Row) -> str:
    case = row.case
    parts = [case.tool, case.criterion, case.allocation]
    name = " ".join(part for part in parts if part)
    return f"{name} + {case.compensation}" if case.compensation not in ("", "none") else name


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _by_budget(rows: Sequence[Row]) -> str:
    """Methods that were run at most budgets, and all peers."""
    found: dict[str, dict[float, Row]] = {}
    for row in rows:
        found.setdefault(_label(row), {})[row.case.reduce] = row
    shown = {
        label: at
        for label, at in found.items()
        if len(at) > 3 or next(iter(at.values())).case.tool != "onnxprune" or "+ bias" in label
    }
    lines = [
        [label, *(f"{100 * (at[b].base - at[b].accuracy):.1f}" if b in at else "" for b in BUDGETS)]
        for label, at in shown.items()
    ]
    return _table(["MACs removed", *(f"{b:.0%}" for b in BUDGETS)], lines)


def _by_criterion(rows: Sequence[Row]) -> str:
    lost = {
        (r.case.criterion, r.case.allocation, r.case.compensation, r.case.reduce): 100 * (r.base - r.accuracy)
        for r in rows
        if r.case.tool == "onnxprune"
    }
    budgets = [b for b in (0.3, 0.5, 0.7) if sum(key[3] == b for key in lost) > 6]
    lines = []
    for criterion, allocation in dict.fromkeys(key[:2] for key in lost):
        cells = []
        for budget in budgets:
            fitted, plain = (lost.get((criterion, allocation, how, budget)) for how in ("refit", "none"))
            brackets = "" if plain is None else f" ({plain:.1f})"
            cells.append("" if fitted is None else f"{fitted:.1f}{brackets}")
        lines.append([criterion, allocation, *cells])
    lines.sort(key=lambda line: (line[1], float(line[-1].split()[0]) if line[-1] else math.inf))
    return _table(["criterion", "allocation", *(f"{b:.0%} of MACs" for b in budgets)], lines)


def _photos() -> str:
    with PHOTOS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = []
    for row in rows:
        shares = [f"{float(row['removed']):.0%}", f"{float(row['agreement']):.1%}"]
        lines.append(
            [f"{row['criterion']} {row['allocation']}", row["compensation"], *shares, row["kl"], row["cosine"]]
        )
    head = ["method", "compensation", "MACs removed", "top-1 as the original's", "KL", "cosine"]
    return (
        "## MobileNetV2 with ImageNet weights\n\n"
        f"Calibrated on {rows[0]['calibration']} crops of half of the pictures that come with scikit-image, and "
        f"compared with the original on {rows[0]['crops']} crops of the other half, 1,000 classes "
        "(`python -m tests.benchmarks.retention_photos`). Six pictures show little of what the network knows: this is "
        "a hard case, and photographs of one's own task would do better.\n\n" + _table(head, lines)
    )


def _plot(rows: Sequence[Row], networks: Sequence[str]) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(networks), 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    styles = {
        "onnxprune refit global + refit": ("tab:blue", "-", "o"),
        "onnxprune l2 uniform + refit": ("tab:cyan", "-", "s"),
        "onnxprune l2 uniform": ("tab:gray", "--", "s"),
        "onnxsim wanda refit": ("tab:orange", ":", "^"),
        "Torch-Pruning taylor global": ("tab:red", ":", "v"),
    }
    for place, network in enumerate(networks):
        axes = figure.add_subplot(1, len(networks), place + 1)
        for label, (colour, line, marker) in styles.items():
            points = sorted(
                (100 * row.removed, 100 * row.accuracy)
                for row in rows
                if row.case.network == network and _label(row) == label
            )
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linestyle=line, marker=marker, label=label)
        axes.axhline(100 * next(r.base for r in rows if r.case.network == network), color="black", linewidth=0.8)
        axes.set(title=network, xlabel="MACs removed, %", ylim=(0, 100))
        axes.grid(alpha=0.3)
        if place == 0:
            axes.set_ylabel("accuracy without training, %")
            axes.legend(fontsize=7)
    figure.savefig(PLOT, metadata={"Date": None})
