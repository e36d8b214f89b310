"""Small questions to ONNX messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import GraphProto, NodeProto, ValueInfoProto

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node."""
    # Only these have bodies, as may operators of other domains; looking at every attribute would take long.
    if node.op_type not in _CONTROL_FLOW and node.domain in STANDARD_DOMAINS:
        return
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured_names(node: NodeProto) -> tuple[str, ...]:
    """The tensors that a node's bodies read from around them, each once, in order of appearance."""
    # Asked of every node of every model: most answers should take no more than this.
    if node.op_type not in _CONTROL_FLOW and node.domain in STANDARD_DOMAINS:
        return ()
    names: dict[str, None] = {}
    for body in bodies(node):
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        own.update(tensor.values.name for tensor in body.sparse_initializer)
        own.add("")
        for inner in body.node:
            names.update((name, None) for name in (*inner.input, *captured_names(inner)) if name not in own)
            own.update(inner.output)
        names.update((value.name, None) for value in body.output if value.name not in own)
    return tuple(names)


def declare(info: ValueInfoProto, name: str, elem_type: int, extents: Sequence[int]) -> None:
    """Fill in a tensor's type; twice as fast as onnx.helper, and there are as many as a model has weights."""
    info.name = name
    tensor_type = info.type.tensor_type
    tensor_type.elem_type = elem_type
    tensor_type.shape.SetInParent()
    dims = tensor_type.shape.dim
    for extent in extents:
        dims.add().dim_value = extent
