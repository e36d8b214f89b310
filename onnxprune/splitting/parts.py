"""The parts that cuts leave of a model, as models of their own, and what joins them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.errors import UsageError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import captured_names
from onnxprune.ir.saving import PROTOBUF_LIMIT
from onnxprune.ir.shapes import Shapes
from onnxprune.splitting.costs import Ledger


def parts_of(ledger: Ledger, heads: Sequence[int]) -> tuple[Model, ...]:
    """A model between the heads of cuts, each of which holds the one before; of k cuts there are k + 1 parts.

    Together they hold every node that computes once, names unchanged; weights that several need are in each. A part
    takes what it reads of earlier ones and of the graph inputs, and gives what later ones read and its graph outputs.

    Raises:
        UsageError: a tensor on the wire has a type that is not known.
    """
    flow = ledger.flow
    borders = [0, *heads, flow.all]
    return tuple(_part(ledger, after & ~before, last=after == flow.all) for before, after in pairwise(borders))


def joined(original: Model, parts: Sequence[Model]) -> Model:
    """Parts as one model again, with the inputs and outputs of the original."""
    draft = original.edit(without_nodes=range(len(original.graph.node)))
    taken: set[tuple[str, ...]] = set()
    for part in parts:
        for name, weight in part.weights.items():
            if name not in draft.weights:
                draft.add(weight)
        for node in part.graph.node:
            # What follows from weights alone is in every part that needs it.
            if tuple(node.output) not in taken:
                taken.add(tuple(node.output))
                draft.graph.node.append(node)
    return draft.finish()


def _part(ledger: Ledger, nodes: int, *, last: bool) -> Model:
    graph, model = ledger.graph, ledger.analysis.model
    flow = ledger.flow
    inside = {index for index in flow.computing if nodes >> index & 1}
    ends = [name for name in graph.outputs if last and name not in flow.order]
    wanted = {name for index in inside for name in graph.nodes[index].reads}.union(ends)
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs) and node.index not in flow.reads:
            inside.add(node.index)
            wanted.update(node.reads)
    made = {name for index in inside for name in graph.nodes[index].outputs}
    beyond = {name for index in flow.computing if not nodes >> index & 1 for name in graph.nodes[index].reads}
    draft = model.edit(without_nodes=set(range(len(graph.nodes))) - inside)
    used = wanted | {name for node in draft.graph.node for name in captured_names(node)}
    draft.remove_weights([name for name in draft.weights if name not in used])
    declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    taken = [name for name in flow.tensors if name in wanted and name not in made]
    passed = [name for name in graph.outputs if last and name in graph.inputs]
    weights = [value for value in draft.graph.input if value.name in draft.weights]
    inputs = [_declared(name, declared, ledger) for name in dict.fromkeys((*taken, *passed))]
    given = [name for name in flow.tensors if name in made and name in beyond]
    outputs = [name for name in graph.outputs if name in made or name in ends or name in passed]
    results = [_declared(name, declared, ledger) for name in dict.fromkeys((*given, *outputs))]
    around = {value.name for value in (*inputs, *results)}
    for field, values in (("input", [*inputs, *weights]), ("output", results)):
        draft.graph.ClearField(field)
        getattr(draft.graph, field).extend(values)
    here = made | around | set(draft.weights)
    kept = [value for value in draft.graph.value_info if value.name in made - around]
    annotations = [one for one in draft.graph.quantization_annotation if one.tensor_name in here]
    del draft.graph.value_info[:], draft.graph.quantization_annotation[:]
    draft.graph.value_info.extend(kept)
    draft.graph.quantization_annotation.extend(annotations)
    draft.skeleton.ClearField("training_info")  # it is of the whole
    return draft.finish()


def _declared(name: str, declared: Mapping[str, ValueInfoProto], ledger: Ledger) -> ValueInfoProto:
    """What a part says of a tensor at its border: as the model does, or what is inferred, open where inputs are."""
    if name in declared:
        return declared[name]
    shapes = ledger.graph.shapes
    elem_type, extents = shapes.elem_types.get(name, TensorProto.UNDEFINED), shapes.extents.get(name)
    if elem_type == TensorProto.UNDEFINED or extents is None:
        # Extents that follow from data are open, but their number may be known.
        said = ledger.analysis.model.derived(_inferred).get(name)
        if said is None or not said.type.tensor_type.HasField("shape"):
            raise UsageError(f"'{name}' cannot cross: its type or rank is not known, or it is no tensor; cut elsewhere")
        return said
    dims = [extent if shapes.is_static(name, dim) else _symbol(name, dim, shapes) for dim, extent in enumerate(extents)]
    return helper.make_tensor_value_info(name, elem_type, dims)


def _inferred(model: Model) -> dict[str, ValueInfoProto]:
    """What onnx infers of the tensors of a model, extents that follow from data left open."""
    if model.file_size >= PROTOBUF_LIMIT:
        return {}
    return {value.name: value for value in onnx.shape_inference.infer_shapes(model.proto).graph.value_info}


def _symbol(tensor: str, dim: int, shapes: Shapes) -> str:
    """The symbol of the graph inputs that an extent follows, or one of its own."""
    other = shapes.other_extents.get(tensor, ())
    pair = (shapes.extents[tensor][dim], other[dim] if dim < len(other) else None)
    for (name, at), symbol in sorted(shapes.bound.free.items(), key=lambda item: item[0][1] != dim):
        if shapes.other_binding is not None and pair == (shapes.binding[name][at], shapes.other_binding[name][at]):
            return symbol
    return f"{tensor}.{dim}"
