"""How much of a model can be pruned, and what keeps the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.explain import why_no_candidate


@dataclass(frozen=True)
class PinnedShare:
    """The share of all MACs that one reason pins, and the layers (those with any pinned filter)."""

    reason: str
    share: float
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """The shares of all MACs in filters that may go, and in those that may not, by reason, largest first.

    A layer's MACs divide over its filters; where several reasons pin a layer, the first one counts.
    """

    prunable: float
    pinned: tuple[PinnedShare, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return asdict(self)


def summarize(analysis: Analysis) -> Summary:
    """Divide the MACs of a model into prunable and pinned."""
    prunable = 0.0
    shares: dict[str, float] = {}
    layers: dict[str, list[str]] = {}
    for layer, report in zip(analysis.costs.layers, analysis.layers, strict=True):
        share, free = report.shares["flops"], report.prunable / max(report.channels, 1)
        prunable += share * free
        if report.prunable < report.channels:
            reason = report.pinned[0] if report.pinned else why_no_candidate(analysis, layer, report.channels)
            shares[reason] = shares.get(reason, 0.0) + share * (1 - free)
            layers.setdefault(reason, []).append(report.name)
    found = [PinnedShare(reason, share, tuple(layers[reason])) for reason, share in shares.items()]
    return Summary(prunable, tuple(sorted(found, key=lambda pinned: -pinned.share)))


def why_nothing(analysis: Analysis) -> str:
    """Why a model without a single group cannot be pruned, in one sentence."""
    pinned = summarize(analysis).pinned
    if pinned:
        reasons = "; ".join(f"{_some(found.layers)} ({found.reason})" for found in pinned)
        said = f"nothing can be pruned: every layer is pinned: {reasons}"
    else:
        said = "nothing can be pruned: the model has no Conv, ConvTranspose, Gemm or MatMul with weights"
    if analysis.unknown:
        said += f"; not understood: {_some([f'{node} ({reason})' for node, reason in analysis.unknown.items()])}"
    return said


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
