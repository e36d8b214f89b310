"""Models that give more than their outputs."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, helper

from onnxprune.ir.model import Model


def giving(model: Model, outputs: Sequence[str], more: Sequence[str]) -> Model:
    """The model with these outputs, and these tensors as outputs, too."""
    draft = model.edit()
    declared = {value.name: value for value in draft.graph.output}
    kept = [declared[name] for name in outputs]
    del draft.graph.output[:]
    draft.graph.output.extend(kept)
    draft.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in more)
    return draft.finish()
