"""Small questions to ONNX messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

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


def body_of(node: NodeProto, name: str) -> GraphProto:
    """The graph that an attribute of a node holds."""
    return next(attribute.g for attribute in node.attribute if attribute.name == name)


def integer(node: NodeProto, name: str, default: int) -> int:
    """The value of an integer attribute."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def standard_opset(model: ModelProto) -> int:
    """The version of the standard operators that a model imports, 1 if it does not say."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=1)


def undecodable(model: ModelProto) -> str | None:
    """Where a model has a name that is not UTF-8, which protobuf gives as bytes; None if nowhere."""
    if not _decoded(entry.domain for entry in model.opset_import):
        return "an operator set"
    for function in model.functions:
        if not _decoded((function.name, function.domain, *function.input, *function.output, *function.attribute)):
            return "a function"
    found = (_undecodable(nodes) for nodes in (model.graph.node, *(function.node for function in model.functions)))
    return next((place for place in found if place), None) or _undecodable_value(model.graph)


def _undecodable(nodes: Iterable[NodeProto]) -> str | None:
    for index, node in enumerate(nodes):
        # One join per node costs little; what is wrong with it is asked only when it fails.
        if not _decoded((node.op_type, node.domain, node.name, *node.input, *node.output)):
            return f"node {index}"
        if not _decoded(text for attribute in node.attribute for text in (attribute.name, attribute.ref_attr_name)):
            return f"an attribute of node {index}"
        for body in bodies(node):
            place = _undecodable(body.node) or _undecodable_value(body)
            if place:
                return f"{place} in node {index}"
    return None


def _undecodable_value(graph: GraphProto) -> str | None:
    names = (value.name for values in (graph.input, graph.output, graph.value_info) for value in values)
    tensors = (tensor.name for tensor in graph.initializer)
    return None if _decoded((graph.name, *names, *tensors)) else "an input, output or tensor"


def _decoded(texts: Iterable[str]) -> bool:
    try:
        "".join(texts)
    except TypeError:
        return False
    return True


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


def node_title(node: NodeProto) -> str:
    """What a node is called in messages: its name, or its first output, or its operator where it has neither."""
    return node.name or next(filter(None, node.output), node.op_type)
