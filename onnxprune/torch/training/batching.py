"""Files that were exported for one batch size, made to take any while they are trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnxprune.ir.model import Draft, Model
from onnxprune.ir.shapes import infer_shapes

_NAME = "onnxprune_batch"


def any_batch(model: Model, among: Collection[str] | None = None) -> Model:
    """The normalised model with an open first dimension, for training only.

    Where all inputs fix one and the same batch size, it is opened, and a Reshape to that size keeps what it is given
    instead. Other models come back as they are. Only the inputs in ``among`` count, if it is given.
    """
    inputs = [value for value in model.graph.input if value.name not in model.weights]
    inputs = inputs if among is None else [value for value in inputs if value.name in among]
    sizes = {
        dims[0].dim_value if dims and dims[0].dim_value > 0 else None
        for dims in (value.type.tensor_type.shape.dim for value in inputs)
    }
    size = next(iter(sizes)) if len(sizes) == 1 else None
    if size is None:
        return model
    extents = infer_shapes(model).extents
    draft = model.edit()
    fed = {value.name for value in (*inputs, *model.graph.output)} - model.weights.keys()
    for value in [*draft.graph.input, *draft.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if value.name in fed and dims and dims[0].dim_value == size:
            dims[0].dim_param = _NAME
    draft.graph.ClearField("value_info")
    for node in draft.graph.node:
        has_target = node.op_type == "Reshape" and len(node.input) > 1 and node.input[1] in model.weights
        if has_target and extents.get(node.input[0], ())[:1] == (size,):
            _follow(draft, node, size)
    return draft.finish()


def _follow(draft: Draft, node: NodeProto, size: int) -> None:
    """Let a Reshape take its first extent from the data (0) where it was the batch size."""
    name = node.input[1]
    target = draft.weights[name].array
    if target.ndim != 1 or not target.size or int(target[0]) != size or not target.all():
        return
    opened = np.array([0, *target[1:]], dtype=target.dtype)
    node.input[1] = draft.add_weight(draft.unique_name(f"{name}_any_batch"), opened).name
    # Otherwise a 0 would mean no elements.
    kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
    node.ClearField("attribute")
    node.attribute.extend(kept)


def sized(inputs: Mapping[str, NDArray[Any]], size: int | None) -> dict[str, NDArray[Any]]:
    """A batch of the size that a model insists on, by repeating or leaving out samples; None leaves it as it is."""
    if size is None:
        return dict(inputs)
    return {name: np.resize(values, (size, *values.shape[1:])) for name, values in inputs.items()}
