"""The end of a classifier: logits instead of the probabilities that the file gives.

The cross-entropy of a Softmax's result loses precision where a probability is nearly 0 or 1. So the model is trained
on what goes *into* its last Softmax; the file keeps the node.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onnx import NodeProto

from onnxprune.errors import TrainingError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS

_THROUGH = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
"""What may follow a Softmax without making it another function."""
ENDINGS = ("Softmax", "LogSoftmax", "Sigmoid")
"""What turns logits into probabilities."""


@dataclass(frozen=True)
class Head:
    """The output to train on: its name and position, and which of ``ENDINGS`` makes it (``ending``), if one does."""

    output: str
    position: int
    ending: str | None


def head_of(model: Model, output: str | None = None) -> Head:
    """What the model's output is.

    Raises:
        TrainingError: there is no such output, or several and none was named.
    """
    names = [value.name for value in model.graph.output]
    if output is None and len(names) != 1:
        raise TrainingError(f"the model has {len(names)} outputs; say which to train on: {', '.join(names)}")
    name = output if output is not None else names[0]
    if name not in names:
        raise TrainingError(f"the model has no output '{name}'; there are: {', '.join(names)}")
    node = _ending(model, name)
    return Head(name, names.index(name), None if node is None else node.op_type)


def without_ending(model: Model, head: Head, endings: Collection[str] = ENDINGS) -> Model:
    """The model with an Identity in place of the node that ends it, if it is one of ``endings``: for training only."""
    found = _ending(model, head.output)
    if found is None or found.op_type not in endings:
        return model
    draft = model.edit()
    node = next(node for node in draft.graph.node if node.output[:1] == found.output[:1])
    node.op_type = "Identity"
    node.ClearField("domain")
    node.ClearField("attribute")
    return draft.finish()


def _ending(model: Model, output: str) -> NodeProto | None:
    """The Softmax, LogSoftmax or Sigmoid that makes an output, if one does."""
    maker = {name: node for node in model.graph.node for name in node.output if name}
    readers: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}
    name = output
    while True:
        found = maker.get(name)
        if found is None or found.domain not in STANDARD_DOMAINS:
            return None
        # Where others read the probabilities, they are more than the end of the model.
        if readers.get(name, 0) + (name in outputs) > 1:
            return None
        if found.op_type in ENDINGS:
            return found
        if found.op_type not in _THROUGH:
            return None
        name = found.input[0]
