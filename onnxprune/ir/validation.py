"""Is the input a valid ONNX model? Checked on a skeleton, so that the cost does not grow with the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, checker, helper, shape_inference

from onnxprune.errors import ModelError, OnnxPruneError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS, bodies, captured_names, declare, node_title

_FOREIGN = "onnxprune.unknown"
_TENSOR = AttributeProto.TENSOR
_NO_OPSET = 1 << 31
_MOST_PER_BYTE = 8
"""Values; the smallest types have two or four."""
_LARGEST_INFERRED = 1 << 30
"""Bytes."""
_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())


def validate(model: Model) -> None:
    """Run onnx.checker on the graph of a model, without its weights.

    Operators that onnx does not know are passed over: they belong to somebody's runtime, and the analysis pins
    what they touch.

    Raises:
        ModelError: the checker finds fault.
    """
    for entry in model.skeleton.opset_import:
        if not 0 <= entry.version < _NO_OPSET:
            raise ModelError(f"{_name(model)} imports version {entry.version} of {entry.domain!r}, which cannot be")
    for tensor in _tensors(model.graph):
        _check_size(tensor.name, tensor.dims, tensor.ByteSize())
    skeleton = ModelProto()
    skeleton.CopyFrom(model.skeleton)
    skeleton.ir_version = max(skeleton.ir_version, 4)
    _disown_unknown(skeleton.graph, _opsets(skeleton))
    skeleton.opset_import.append(helper.make_opsetid(_FOREIGN, 1))
    listed = {value.name for value in skeleton.graph.input}
    for name, weight in model.weights.items():
        if weight.elem_type not in _ELEMENT_TYPES:
            raise ModelError(
                f"weight '{name}' is of element type {weight.elem_type}, which this version of onnx does not know; "
                "export the model again or update onnx"
            )
        _check_size(name, weight.shape, weight.encoded_size)
        if name not in listed:
            declare(skeleton.graph.input.add(), name, weight.elem_type or TensorProto.FLOAT, weight.shape)
    try:
        checker.check_model(skeleton)
    except checker.ValidationError as error:
        missing = _missing(model.graph, model.weights)
        if missing is not None:
            raise ModelError(f"{_name(model)} is incomplete: {missing}; export it again with its weights") from error
        raise ModelError(f"onnx.checker rejects {_name(model)}: {_reason(error)}; export the model again") from error


@contextmanager
def blaming(model: Model) -> Iterator[None]:
    """Where what is done with a model fails in a way that nobody foresaw, see whether the model contradicts itself.

    onnx.checker passes over much (a convolution with a vector for its weight, say), and finding out costs more than
    the analysis of a small model. So it is only asked when something fails; a fault of ours stays what it is.

    Raises:
        ModelError: it does.
    """
    try:
        yield
    except (OnnxPruneError, MemoryError):
        raise
    except Exception as error:
        fault = _contradiction(model)
        if fault is None:
            raise
        raise ModelError(f"{_name(model)} contradicts itself: {fault}; export it again") from error


def _contradiction(model: Model) -> str | None:
    """What shape inference or onnxruntime finds wrong with a model, in one line; None if they take it."""
    from onnxprune.ir.session import Session, first_line

    try:
        proto = model.proto if model.file_size < _LARGEST_INFERRED else model.skeleton
        shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        Session(model, "it")
    except Exception as error:
        return first_line(error).rstrip(".")
    return None


def _check_size(name: str, shape: Sequence[int], stored: int) -> None:
    """See that a tensor is not said to have more values than its bytes can hold: shape inference makes room for all."""
    if math.prod(shape) > _MOST_PER_BYTE * stored:
        raise ModelError(
            f"tensor '{name}' of dimensions {list(shape)} does not have that many values; the file is damaged, "
            "fetch or export it again"
        )


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The tensors in attributes, and those of bodies, whose values are inside the model."""
    found = [attribute.t for node in graph.node for attribute in node.attribute if attribute.type == _TENSOR]
    for body in (body for node in graph.node for body in bodies(node)):
        found.extend(body.initializer)
        yield from _tensors(body)
    yield from (tensor for tensor in found if tensor.data_location != TensorProto.EXTERNAL)


def _missing(graph: GraphProto, weights: Iterable[str]) -> str | None:
    """The first tensor that is read and nowhere to be found, in words."""
    made = {name for node in graph.node for name in node.output}
    known = {"", *made, *weights, *(i.name for i in graph.input), *(s.values.name for s in graph.sparse_initializer)}
    for node in graph.node:
        for name in (*node.input, *captured_names(node)):
            if name not in known:
                reader = f"{node.op_type} '{node_title(node)}'"
                return f"{reader} reads '{name}', which is no input, no weight, and made by no node"
    return None


def _name(model: Model) -> str:
    return "the model" if model.path is None else str(model.path)


def _reason(error: checker.ValidationError) -> str:
    """The checker's message in one line, without the context that it adds."""
    said, _, _ = str(error).partition("==>")
    return " ".join(said.split()).rstrip(".")


def _opsets(skeleton: ModelProto) -> dict[str, int]:
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in skeleton.opset_import}


def _disown_unknown(graph: GraphProto, opsets: dict[str, int]) -> None:
    """Move operators that the imported opsets do not hold into a domain that the checker does not judge."""
    known: set[str] = set()
    for node in graph.node:
        op_type = node.op_type
        if node.domain in STANDARD_DOMAINS and op_type not in known:
            if onnx.defs.has(op_type, opsets.get("", 1), ""):
                known.add(op_type)
            else:
                node.domain = _FOREIGN
        for body in bodies(node):
            _disown_unknown(body, opsets)
