"""Quantised models, by onnxruntime.quantization."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import onnx

from onnxprune.errors import UsageError
from onnxprune.ir.model import Model, load
from onnxprune.ir.session import first_line
from onnxprune.pruning.quantization.calibrating import Ranges
from onnxprune.pruning.quantization.formats import Format
from onnxprune.pruning.quantization.quietly import quietly

#: Their factors are as precise as what they scale needs, and they are no work.
_LEFT = ("BatchNormalization", "InstanceNormalization", "LayerNormalization")


def quantisable(prepared: Model) -> tuple[str, ...]:
    """The names of the nodes that onnxruntime.quantization has a form for, in order."""
    kinds = set(_kinds()) - set(_LEFT)
    return tuple(node.name for node in prepared.graph.node if node.op_type in kinds and node.domain in ("", "ai.onnx"))


def write_quantised(prepared: Model, ranges: Ranges, nodes: Collection[str], format: Format) -> Model:
    """The model with QuantizeLinear and DequantizeLinear around some of its nodes, weights per channel.

    Args:
        prepared: see :func:`~onnxprune.pruning.quantization.preparing.prepare`.
        ranges: the ranges of its tensors.
        nodes: the names of the nodes; at least one.
        format: what numbers to use.

    Raises:
        UsageError: onnxruntime.quantization does not take the model.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType

    proto = onnx.ModelProto()
    proto.CopyFrom(prepared.derived(_with_shapes))
    chosen = set(nodes)
    try:
        with quietly():
            quantizer = QDQQuantizer(
                proto,
                True,
                format.reduced,
                QuantType.QInt8,
                QuantType.QInt8 if format.signed else QuantType.QUInt8,
                ranges.to_onnxruntime(),
                sorted(chosen),
                [],
                _kinds(),
                # Attention multiplies activations; products of two of them are no layers, and rarely faster.
                {"WeightSymmetric": True, "ActivationSymmetric": False, "MatMulConstBOnly": True},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            written = load(quantizer.model.model)
    except Exception as error:
        raise UsageError(f"onnxruntime.quantization does not take the model: {first_line(error)}") from error
    return described(prepared, written)


def _kinds() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


def _with_shapes(model: Model) -> onnx.ModelProto:
    """The whole model with the types of all tensors: what has none is not quantised."""
    return onnx.shape_inference.infer_shapes(model.to_proto())


def described(prepared: Model, written: Model) -> Model:
    """The written model with what the original says of itself, and without shapes that it did not tell."""
    draft = written.edit()
    told: Any = prepared.skeleton
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(draft.skeleton, field, getattr(told, field))
    del draft.skeleton.metadata_props[:], draft.graph.value_info[:]
    draft.skeleton.metadata_props.extend(told.metadata_props)
    draft.path, draft.sources = prepared.path, prepared.sources
    return draft.finish()


#: Layers whose weights onnxruntime rounds by itself, one scale for all of them, and what it looks through.
_ROUNDED, _LOOKED_THROUGH = ("Conv", "ConvTranspose", "Gemm"), ("Clip", "Relu")


def rounded_anyway(model: Model) -> frozenset[str]:
    """The float layers of a quantised model that onnxruntime computes in integers all the same.

    Where a layer reads a DequantizeLinear and its result goes to a QuantizeLinear, its optimiser rounds
    the weights, with one scale for all channels (1.32 does): worse than what stands in a file. Two float layers in a
    row stay.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    makers: dict[str, str] = {}
    for node in model.graph.node:
        makers.update(dict.fromkeys(node.output, node.op_type))
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = set()
    for node in model.graph.node:
        if node.op_type not in _ROUNDED or makers.get(node.input[0]) != "DequantizeLinear":
            continue
        if makers.get(node.input[1]) == "DequantizeLinear":
            continue
        after = readers.get(node.output[0], [])
        while len(after) == 1 and after[0].op_type in _LOOKED_THROUGH:
            after = readers.get(after[0].output[0], [])
        if any(reader.op_type == "QuantizeLinear" for reader in after):
            found.add(node.name)
    return frozenset(found)
