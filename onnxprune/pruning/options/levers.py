"""What may be done to a model: one vocabulary for plans, which take some of it, and for searches, which take all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxprune.errors import UsageError, unknown
from onnxprune.pruning.options.definition import defined, words

CHANNELS, REGIONS, RANKS, RESOLUTION, INT8, RECOVERY = "channels", "regions", "ranks", "resolution", "int8", "recovery"
PLANNED = (CHANNELS, REGIONS, RANKS, RESOLUTION)
"""What a plan names: channels; regions of the graph, for which a fitted layer stands; ranks of layers, which become
two; the resolution of the maps that all is computed on."""
LEVERS = (*PLANNED, INT8, RECOVERY)
"""And what is done to the result: layers in integers; weights that the original has taught."""

_SAID = {
    CHANNELS: "channels go",
    REGIONS: "regions of the graph give way to a layer that is fitted in closed form, or to nothing",
    RANKS: "layers become two of low rank",
    RESOLUTION: "what is computed from an image is computed from a smaller one, which the file makes itself",
    INT8: "layers compute in 8-bit integers",
    RECOVERY: "the original teaches the result (with PyTorch)",
}


def levers_option(default: Sequence[str], known: Sequence[str], **said: Any) -> str:
    """The option ``levers`` of a command that knows these; ``said`` as for :func:`defined`."""
    meaning = "; ".join(f"{name}: {_SAID[name]}" for name in known)
    names = ", ".join(known)
    told = f"What may be done: {names} (with commas). {meaning}. How much of the budget each takes is tried out."
    return defined(",".join(default), told, example="NAMES", **said)


def pulled(given: str, known: Sequence[str]) -> tuple[str, ...]:
    """The levers that are named, without repetitions. Raises UsageError where one is not known, or there is none."""
    found = words(given)
    for name in found:
        if name not in known and name in LEVERS:
            raise UsageError(
                f"levers: {name} says nothing of a plan; here it is the option {_OPTIONS[name]} (onnxprune auto takes "
                "it as a lever)"
            )
        if name not in known:
            raise UsageError(f"levers: {unknown('lever', name, known)}")
    if not found:
        raise UsageError(f"levers: give at least one of {', '.join(known)}")
    return found


_OPTIONS = {INT8: "int8 (--int8)", RECOVERY: "recover (--recover)"}
