"""How a recovery goes, in words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.pruning.recovery import Recovery
    from onnxprune.pruning.rounds import Round
    from onnxprune.torch.recovery import State


def watching(terminal: Terminal, minutes: float) -> Callable[[State], None]:
    """Tells, after each evaluation, how far a recovery is and what is left of the answers."""

    def heard(state: State) -> None:
        if not terminal.as_json:
            said = f"{state.seconds / 60:.1f} of {minutes:g} min, {state.step} steps: {figures(state)}"
            print(f"Recovering: {said}", file=sys.stderr, flush=True)

    return heard


def figures(state: State) -> str:
    """What was measured on the samples held out."""
    if state.measure == "cosine":
        return f"cosine {1 - state.damage:.4f}"
    if state.agreement is None:
        return f"error {state.damage:.4f} of the outputs' variance"
    return f"as the original's {state.agreement:.1%}, KL {state.damage:.4f}"


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def rounds_line(rounds: Sequence[Round]) -> str:
    """What went in each of several rounds, and how much of what was lost then came back."""
    parts = []
    for one in rounds:
        healed = "" if one.damage is None else f" ({one.damage[0]:.4f} → {one.damage[1]:.4f} in {one.steps} steps)"
        parts.append(f"{one.left:.1%}{healed}")
    return f"In {len(rounds)} rounds, what was left, and damage before and after recovery: {', then '.join(parts)}."


def recovery_line(done: Recovery) -> str:
    """One sentence about a recovery."""
    first, last = done.states[0], done.states[done.kept]
    if len(done.states) == 2 and done.states[-1].step == 1:
        return (
            "Recovery had time for a single step (--minutes): "
            f"{figures(first)} → {figures(last)}; {'it is' if done.kept else 'weights are'} kept"
            f"{'' if done.kept else ' as they were'}."
        )
    if not done.kept:
        return (
            f"Recovery found nothing better in {done.states[-1].step} steps ({figures(first)}): weights as they were."
        )
    return (
        f"Recovery with {done.samples} samples in {len(done.blocks) + 1} blocks, {last.step} steps in "
        f"{_time(last.seconds)}: {figures(first)} → {figures(last)} on {done.held_out} samples held out."
    )
