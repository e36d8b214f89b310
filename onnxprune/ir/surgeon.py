"""To onnx-graphsurgeon and back, without what its round trip loses."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

_M = TypeVar("_M", bound=Message)


def import_graph(proto: ModelProto) -> gs.Graph:
    """An onnx-graphsurgeon graph of a model, whose tensors it may rename: pass one that nobody else uses."""
    import onnx_graphsurgeon  # only compiler pipelines get here: the import takes time and memory

    return onnx_graphsurgeon.import_onnx(proto)


def merge(original: ModelProto, graph: gs.Graph) -> ModelProto:
    """Export an edited graph, and give back to it all that the round trip lost.

    What a mere round trip of the original yields is the base of comparison: everything that is still as in
    the base was not edited and is taken from the original as it was; what was edited keeps its edit, and gets
    the fields that onnx-graphsurgeon has no place for.
    """
    import onnx_graphsurgeon as gs

    copy = ModelProto()
    copy.CopyFrom(original)
    base = gs.export_onnx(import_graph(copy), do_type_check=False)
    edited = gs.export_onnx(graph, do_type_check=False)

    merged = ModelProto()
    merged.CopyFrom(edited)
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if getattr(edited, name) == getattr(base, name):
            _take(merged, original, name)
    for name in ("metadata_props", "training_info", "configuration"):
        if hasattr(original, name):
            _take(merged, original, name)
    if list(edited.opset_import) == list(base.opset_import):
        _take(merged, original, "opset_import")
    _restore(merged.functions, base.functions, original.functions, lambda f: (f.domain, f.name, f.overload))
    _merge_graph(merged.graph, base.graph, original.graph)
    return merged


def _merge_graph(merged: GraphProto, base: GraphProto, original: GraphProto) -> None:
    for name in ("name", "doc_string"):
        if getattr(merged, name) == getattr(base, name):
            _take(merged, original, name)
    for name in ("metadata_props", "quantization_annotation"):
        _take(merged, original, name)
    for name in ("input", "output", "value_info", "initializer"):
        _restore(getattr(merged, name), getattr(base, name), getattr(original, name), lambda item: item.name)
    _restore(
        merged.sparse_initializer,
        base.sparse_initializer,
        original.sparse_initializer,
        lambda t: t.values.name,
    )
    _keep_order(merged, original, "initializer")
    _keep_order(merged, original, "value_info")
    _restore(merged.node, base.node, original.node, lambda n: tuple(n.output), _merge_node)


def _merge_node(merged: NodeProto, base: NodeProto, original: NodeProto) -> None:
    """Give an edited node what onnx-graphsurgeon has no place for, and the same for the graphs inside it."""
    if merged.op_type != original.op_type:
        return
    for name in ("doc_string", "overload", "metadata_props", "device_configurations"):
        if hasattr(original, name):
            _take(merged, original, name)
    _restore(merged.attribute, base.attribute, original.attribute, lambda a: a.name, _merge_attribute)


def _merge_attribute(merged: AttributeProto, base: AttributeProto, original: AttributeProto) -> None:
    if merged.type == original.type == AttributeProto.GRAPH:
        _merge_graph(merged.g, base.g, original.g)


def _restore(
    merged: Any,
    base: Any,
    original: Any,
    key: Callable[[Any], Hashable],
    merge_edited: Callable[[Any, Any, Any], None] | None = None,
) -> None:
    """In a repeated field, take items that were not edited from the original; merge the others."""
    if list(merged) == list(base):
        del merged[:]
        merged.extend(original)
        return
    base_items = {key(item): item for item in base}
    original_items = {key(item): item for item in original}
    for item in merged:
        before, source = base_items.get(key(item)), original_items.get(key(item))
        if source is None or before is None:
            continue
        if item == before:
            item.CopyFrom(source)
        elif merge_edited is not None:
            merge_edited(item, before, source)
    present = {key(item) for item in merged}
    merged.extend(item for name, item in original_items.items() if name not in base_items and name not in present)


def _keep_order(merged: GraphProto, original: GraphProto, name: str) -> None:
    """Sort a repeated field as the original has it; new items come last."""
    position = {item.name: number for number, item in enumerate(getattr(original, name))}
    getattr(merged, name).sort(key=lambda item: position.get(item.name, len(position)))


def _take(target: Message, source: Message, name: str) -> None:
    """Make one field as it is in the source."""
    target.ClearField(name)
    value = getattr(source, name)
    if hasattr(value, "extend"):
        getattr(target, name).extend(value)
    elif source.HasField(name):
        setattr(target, name, value)
