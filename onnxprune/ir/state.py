"""State that a model hands from one run to the next: pairs of a graph input and the graph output that follows it.

A hidden state or a cache of keys and values comes in, and goes out to come in again. Its width is the model's own, and
may shrink, if the input and the output shrink together; whoever runs the model then has to start from a state of the
new width. So it is done on request only, and names merely propose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from onnx import ValueInfoProto

from onnxprune.errors import UsageError
from onnxprune.ir.model import Model


class StatePair(NamedTuple):
    """A graph input, and the graph output that is fed to it in the next run."""

    input: str
    output: str

    def __str__(self) -> str:
        return f"{self.input} → {self.output}"


State: TypeAlias = "Mapping[str, str] | str | None"
"""Outputs by input; or ``auto``, which takes what the names propose; or nothing."""

AUTO = "auto"

_BEFORE = re.compile(r"past_key_values|past|previous|prev|initial|init|(?<![a-z])in(put)?(?![a-z])", re.IGNORECASE)
_AFTER = re.compile(
    r"present_key_values|present|next|new|updated|final|last|(?<![a-z])out(put)?(?![a-z])", re.IGNORECASE
)


def state_pairs(model: Model, state: State) -> tuple[StatePair, ...]:
    """The pairs that are asked for.

    Raises:
        UsageError: an input or output that the model does not have, or that is named twice; ``auto`` where no names
            propose anything.
    """
    if not state:
        return ()
    if isinstance(state, str):
        if state != AUTO:
            raise UsageError(f"state is '{AUTO}' or maps inputs to outputs, not '{state}'")
        proposed = proposed_pairs(model)
        if not proposed:
            raise UsageError("no names of inputs and outputs say that they carry state; name them, like h0=hn")
        return proposed
    inputs, outputs = _tensors(model)
    for kind, names, known in (("input", list(state), inputs), ("output", list(state.values()), outputs)):
        for name in names:
            if name not in known:
                raise UsageError(f"the model has no {kind} '{name}'; those it has are: {', '.join(known) or 'none'}")
            if names.count(name) > 1:
                raise UsageError(f"state names {kind} '{name}' twice; every state has one input and one output")
    return tuple(StatePair(before, after) for before, after in state.items())


def proposed_pairs(model: Model) -> tuple[StatePair, ...]:
    """The pairs that names suggest: past and present, h0 and hn, state and stateN, and the like, of like shape."""
    inputs, outputs = _tensors(model)
    found = []
    taken: set[str] = set()
    for name, before in inputs.items():
        keys = _keys(_BEFORE, name, "0")
        fitting = [
            other
            for other, after in outputs.items()
            if other not in taken and _alike(before, after) and not keys.isdisjoint(_keys(_AFTER, other, "nN"))
        ]
        if len(fitting) == 1:
            found.append(StatePair(name, fitting[0]))
            taken.add(fitting[0])
    return tuple(found)


def _tensors(model: Model) -> tuple[dict[str, ValueInfoProto], dict[str, ValueInfoProto]]:
    inputs = {value.name: value for value in model.graph.input if value.name not in model.weights}
    return inputs, {value.name: value for value in model.graph.output}


def _keys(words: re.Pattern[str], name: str, end: str) -> set[str]:
    """What is left of a name without what says before or after."""
    bare = re.sub(r"[^0-9A-Za-z]", "", words.sub("", name)).lower()
    cut = re.sub(r"[^0-9A-Za-z]", "", name).rstrip(end).lower()
    # "past" alone says enough; "input" does not.
    alone = {""} if name.lower() in {"past", "present"} else set()
    return {key for key in (bare, cut) if key} | alone


def _alike(before: ValueInfoProto, after: ValueInfoProto) -> bool:
    """Whether element types agree, and ranks and fixed extents as far as they are declared."""
    a, b = before.type.tensor_type, after.type.tensor_type
    if a.elem_type != b.elem_type:
        return False
    if not a.HasField("shape") or not b.HasField("shape"):
        return True
    dims = list(zip(a.shape.dim, b.shape.dim, strict=False))
    fixed = all(x.dim_value == y.dim_value for x, y in dims if x.dim_value and y.dim_value)
    return len(a.shape.dim) == len(b.shape.dim) > 1 and fixed
