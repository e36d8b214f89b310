"""Models that give more than their outputs."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.ir.model import Model


def giving(model: Model, outputs: Sequence[str], more: Sequence[str], kind: int = TensorProto.FLOAT) -> Model:
    """The model with these outputs, and these tensors of one type (UNDEFINED: of any) as outputs, too."""
    draft = model.edit()
    declared = {value.name: value for value in draft.graph.output}
    kept = [declared[name] for name in outputs]
    del draft.graph.output[:]
    draft.graph.output.extend(kept)
    for name in more:
        known = kind != TensorProto.UNDEFINED
        draft.graph.output.append(
            helper.make_tensor_value_info(name, kind, None) if known else ValueInfoProto(name=name)
        )
    return draft.finish()
