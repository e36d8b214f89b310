"""Keeping only some positions of the outputs, some classes, say: what made the others goes.

A Gather is put where the positions are chosen: behind the output, or before a Softmax over them, whose probabilities
then are shares of what is kept. Whatever the Gather does not read is removed as any channel is, by a plan, with the
usual certificate; then the Gather has nothing left to choose and goes, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from onnxprune.analysis.analyzing import Analysis, InputShapes, analyze
from onnxprune.errors import UsageError, VerificationError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.provenance import with_step
from onnxprune.ir.session import Session
from onnxprune.ir.shapes import Shapes, infer_shapes
from onnxprune.ops import Registry
from onnxprune.ops.relations import AxisTable, IntArray, Relations
from onnxprune.passes.eliminate_identity import EliminateIdentity
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.branches import without_unread
from onnxprune.pruning.certificate import Certificate, verify
from onnxprune.pruning.certificate.verifying import usual_inputs
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.labels import Selection, class_names, classes_kept, find_classes, with_names
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.shrinking import Shrink

KEEP = "keep"
"""The step, as files tell of it."""
TOLERANCE = 1e-5
"""Largest difference of a kept position from the original's, relative to the largest value at that position."""


@dataclass(frozen=True)
class Kept:
    """What became of one selection.

    ``renormalised`` names the operator whose probabilities are shares of the kept positions alone, if there is one.
    ``left`` counts positions that could not be removed and are computed still, and ``why`` says why; ``difference``
    is the largest of a position from the original's, relative to its largest value (None: not compared).
    """

    selection: Selection
    extent: int
    renormalised: str | None
    left: int
    why: tuple[str, ...]
    difference: float | None = None

    @property
    def words(self) -> str:
        """In a sentence."""
        of = self.selection
        said = f"{of.output}[{of.axis}]: {len(of.positions)} of {self.extent} positions"
        if self.renormalised:
            said += f", the {self.renormalised} over these alone"
        if self.left:
            said += f"; {self.left} others are computed still ({'; '.join(self.why)})"
        if self.difference is not None:
            said += f"; {self.difference:.1g} from the original's"
        return said

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        of = self.selection
        return {
            "output": of.output,
            "axis": of.axis,
            "positions": list(of.positions),
            "extent": self.extent,
            "renormalised": self.renormalised,
            "left": self.left,
            "why": list(self.why),
            "difference": self.difference,
        }


@dataclass(frozen=True)
class Keeping:
    """The smaller model, what was kept of which output, the totals before and after, and the certificate."""

    model: Model
    kept: tuple[Kept, ...]
    before: dict[str, float]
    after: dict[str, float]
    metadata: tuple[str, ...]
    certificate: Certificate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        proof = None if self.certificate is None else self.certificate.to_dict()
        return {
            "kept": [one.to_dict() for one in self.kept],
            "before": self.before,
            "after": self.after,
            "metadata": list(self.metadata),
            "certificate": proof,
        }


def keep(
    model: ModelLike,
    *,
    classes: Sequence[int | str] = (),
    positions: Sequence[str] = (),
    names: Sequence[str] = (),
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    certify: bool = True,
) -> Keeping:
    """Make a model say only some of its classes, or only some positions of its outputs; the rest is as it was.

    Args:
        model: a Model, ModelProto or path.
        classes: the classes to keep, by number, or by the names that the model's metadata or ``names`` give. They stay
            in the model's order.
        positions: instead or as well, positions of an axis of an output, like ``"logits[1]=0,5,10-19"``.
        names: the names of all classes, if the model does not tell them.
        input_shapes: shapes for inputs with symbolic dimensions.
        registry: the known operators, if not the default ones.
        certify: compare the result with the original's kept outputs, and with the masked original.

    Raises:
        UsageError: nothing to keep, classes or outputs that do not exist, or positions that cannot be chosen there.
        ModelError: the model cannot be read.
        VerificationError: the result does not give what the original gives for what is kept.
    """
    if not classes and not positions:
        raise UsageError("say what to keep: classes, or positions of outputs")
    given = as_model(model)
    source = normalize(given)
    whole = analyze(source, input_shapes, registry=registry)
    shapes = whole.shapes
    known = names or class_names(source)
    chosen = [*map(Selection.parse, positions), *(find_classes(source, shapes, classes, known) if classes else ())]
    graph = source.derived(Graph)
    places = [_place(graph, shapes, selection, whole.registry) for selection in chosen]
    selected = _selected(source, places)
    analysis = analyze(selected, input_shapes, registry=registry)
    atoms = _unread(analysis, places)
    plan = Plan(removed_by_axis(analysis, atoms), settings={"split": analysis.split.value})
    result = Shrink(plan, registry)(selected).model if plan else selected
    certificate = None
    if certify and plan:
        certificate = verify(selected, result, plan, input_shapes=input_shapes, registry=registry)
        certificate.require()
    kept = []
    for place in places:
        result, gone = without_unread(result, place.chosen, partial(_passes_on, whole.registry))
        kept.append(_judged(place, analysis, plan, gone))
    result = _without_gathers(result, places)
    draft = result.edit()
    classes_left = {
        len(known): left
        for one in kept
        if known and (left := classes_kept(one.selection, one.extent, len(known))) is not None
    }
    metadata = with_names(draft, result, classes_left)
    told = {"original": model_digest(given), "positions": [str(selection) for selection in chosen]}
    result = with_step(draft.finish(), KEEP, told)
    if certify:
        kept = _compared(source, result, analysis, places, kept)
    before, after = (analyze(one, input_shapes, registry=registry).totals for one in (source, result))
    return Keeping(result, tuple(kept), before, after, tuple(metadata), certificate)


@dataclass(frozen=True)
class _Place:
    """Where a selection is made: the tensor that is chosen from, and the name of what is chosen.

    Behind an output the whole tensor gets a name of its own, ``whole``, and ``chosen`` is the output. Before the node
    ``reader``, which makes ``made``, the whole tensor keeps its name, and ``chosen`` is what that node reads instead.
    """

    selection: Selection
    tensor: str
    axis: int
    extent: int
    reader: int | None
    reader_type: str | None
    made: str
    whole: str
    chosen: str


def _place(graph: Graph, shapes: Shapes, selection: Selection, registry: Registry) -> _Place:
    """Where to choose: before the last operator that compares the positions, if there is one, else at the output."""
    outputs = [value.name for value in graph.model.graph.output]
    name, axis = selection.output, selection.axis
    if name not in outputs:
        raise UsageError(f"the model has no output '{name}'; it has {', '.join(outputs)}")
    extents = shapes.extents.get(name)
    if extents is None or axis >= len(extents):
        shape = "an unknown shape" if extents is None else f"the shape {list(extents)}"
        raise UsageError(f"there is no axis {axis} of output '{name}', which has {shape}")
    if not shapes.is_static(name, axis):
        raise UsageError(f"the extent of {name}[{axis}] follows the input's shape: its positions cannot be chosen")
    extent = extents[axis]
    outside = [at for at in selection.positions if at >= extent]
    if outside:
        raise UsageError(f"{name}[{axis}] has no position {outside[0]}: it has {extent}, counted from 0")
    if name not in graph.producer:
        raise UsageError(f"output '{name}' is a graph input or a constant; nothing makes its positions")
    made = name
    while made in graph.producer:
        node = graph.nodes[graph.producer[made]]
        operator = registry.find(node)
        source = node.inputs[0] if node.inputs else ""
        if operator is None or len(shapes.extents.get(source, ())) != len(extents):
            break
        if operator.compares(node) == axis:
            return _Place(selection, source, axis, extent, node.index, node.op_type, made, source, f"{source}_kept")
        if not _passes_on(registry, node, shapes, axis):
            break
        made = source
    return _Place(selection, name, axis, extent, None, None, name, f"{name}_whole", name)


def _passes_on(registry: Registry, node: Node, shapes: Shapes, axis: int) -> bool:
    """Whether a node of one operand gives for every position of an axis what it makes of that position."""
    operator = registry.find(node)
    if operator is None or len(node.inputs) != 1:
        return False
    relations = Relations(AxisTable({name: shapes.extents[name] for name in (*node.inputs, *node.outputs)}))
    relations.begin(node.index)
    operator.relate(node, relations)
    ends = {relations.axes.id(node.inputs[0], axis), relations.axes.id(node.outputs[0], axis)}
    return any({same.a, same.b} == ends for same in relations.same)


def _selected(model: Model, places: Sequence[_Place]) -> Model:
    """The model with a Gather at every place; whatever is made of the whole tensors elsewhere stays."""
    draft = model.edit()
    behind: dict[int, list[Any]] = {}
    graph = model.derived(Graph)
    renamed: dict[str, str] = {}
    for place in places:
        whole = place.whole
        producer = graph.producer.get(place.tensor, -1)
        if place.reader is None:
            if place.tensor in renamed:
                raise UsageError(f"positions of '{place.tensor}' are chosen twice; write them as one choice")
            renamed[place.tensor] = whole
            outputs = draft.graph.node[producer].output
            outputs[list(outputs).index(place.tensor)] = whole
        else:
            inputs = draft.graph.node[place.reader].input
            inputs[list(inputs).index(place.tensor)] = place.chosen
            whole = renamed.get(whole, whole)
        index = draft.add_weight(draft.unique_name(f"{place.chosen}_positions"), np.array(place.selection.positions))
        node = helper.make_node("Gather", [whole, index.name], [place.chosen], name=f"{place.chosen}_keep")
        node.attribute.append(helper.make_attribute("axis", place.axis))
        behind.setdefault(producer, []).append(node)
    # What else reads a whole tensor goes on reading it.
    for at, proto in enumerate(draft.graph.node):
        for slot, name in enumerate(proto.input):
            if name in renamed and at not in {place.reader for place in places}:
                proto.input[slot] = renamed[name]
    nodes = list(draft.graph.node)
    del draft.graph.node[:]
    draft.graph.node.extend(behind.get(-1, []))
    for at, proto in enumerate(nodes):
        draft.graph.node.append(proto)
        draft.graph.node.extend(behind.get(at, []))
    del draft.graph.value_info[:]
    return _declared(draft.finish())


def _unread(analysis: Analysis, places: Sequence[_Place]) -> IntArray:
    """The atoms of positions that no Gather reads and that nothing else needs; none that would empty an axis."""
    coupling, axes = analysis.coupling, analysis.coupling.axes
    exact = {atom for group in coupling.groups if group.approximate is None for atom in group.atoms.tolist()}
    found: set[int] = set()
    for place in places:
        owner = coupling.class_of.get(axes.id(place.whole, place.axis))
        if owner is not None:
            rest = np.setdiff1d(np.arange(place.extent), place.selection.positions)
            found |= set(coupling.class_labels(owner)[rest].tolist()) & exact
    atoms = np.array(sorted(found), dtype=np.int64)
    for index, gone in enumerate(coupling.removed_positions(atoms)):
        if len(gone) == coupling.extents[index]:
            atoms = np.setdiff1d(atoms, coupling.class_labels(index))
    return atoms


def _judged(place: _Place, analysis: Analysis, plan: Plan, branches: int) -> Kept:
    """What became of a selection; ``branches`` positions went with whole branches."""
    gone = plan.removed.get(place.whole, {}).get(place.axis, ())
    left = place.extent - len(place.selection.positions) - len(gone) - branches
    why: tuple[str, ...] = ()
    if left:
        pins = analysis.coupling.pins_on(analysis.coupling.axes.id(place.whole, place.axis))
        graph, axes = analysis.graph, analysis.coupling.axes
        # That what is kept reaches its output, and that it is picked, holds nothing else.
        own, picked = {place.chosen, place.selection.output}, graph.producer[place.chosen]
        held = [pin for pin in pins if axes.tensor(pin.axis) not in own and pin.node != picked]
        why = tuple(dict.fromkeys(pin.reason for pin in held))
        maker = graph.nodes[graph.producer[place.whole]].op_type
        why = why[:3] or (f"{maker} makes them, and no layer that could lose them one by one",)
    return Kept(place.selection, place.extent, place.reader_type, left, why)


def _without_gathers(model: Model, places: Sequence[_Place]) -> Model:
    """The model without the Gathers that choose all there is."""
    draft, chosen = model.edit(), {place.chosen for place in places}
    graph = model.derived(Graph)
    extents = infer_shapes(model).extents
    idle = []
    for index in graph.kinds.get("Gather", ()):
        node = graph.nodes[index]
        if node.outputs[0] in chosen and node.inputs[1] in model.weights:
            at = model.weights[node.inputs[1]].array
            if len(at) == extents[node.inputs[0]][int(node.attr("axis", 0))]:
                idle.append(index)
    for index in idle:
        proto = draft.graph.node[index]
        draft.remove_weights([proto.input[1]])
        proto.CopyFrom(helper.make_node("Identity", [proto.input[0]], [proto.output[0]], name=proto.name))
    return EliminateIdentity()(draft.finish()).model


def _declared(model: Model) -> Model:
    """The model whose outputs declare the extents that they have; what is open stays open."""
    draft, extents = model.edit(), infer_shapes(model).extents
    for value in draft.graph.output:
        for dim, declared in enumerate(value.type.tensor_type.shape.dim):
            if declared.HasField("dim_value"):
                declared.dim_value = extents[value.name][dim]
    return draft.finish()


def _compared(
    source: Model, result: Model, analysis: Analysis, places: Sequence[_Place], kept: Sequence[Kept]
) -> list[Kept]:
    """What the original has at the kept positions, and what the result has, run in onnxruntime.

    Nothing of the removal is used: the original runs as it is, and numpy takes positions from its tensors.
    Raises VerificationError where they differ.
    """
    inputs = usual_inputs(analysis)
    graph = result.derived(Graph)
    pairs = {}
    for place in places:
        name = place.made if place.reader is None else graph.nodes[graph.producer[place.made]].inputs[0]
        pairs[place] = (place.tensor, name)
    before = _tensors(source, [pair[0] for pair in pairs.values()], inputs, "the original model")
    after = _tensors(result, [pair[1] for pair in pairs.values()], inputs, "the model of what is kept")
    found = []
    for place, one in zip(places, kept, strict=True):
        wanted = before[pairs[place][0]].take(place.selection.positions, axis=place.axis)
        given = after[pairs[place][1]]
        if wanted.shape != given.shape:
            raise VerificationError(f"{place.selection.output} has the shape {given.shape}, not {wanted.shape}")
        difference = _difference(wanted, given, place.axis)
        found.append(replace(one, difference=difference))
        if not difference <= TOLERANCE:
            raise VerificationError(
                f"what is kept of {place.selection.output} is not what the original gives: {found[-1].words}; "
                "please report this model"
            )
    return found


def _difference(wanted: NDArray[Any], given: NDArray[Any], axis: int) -> float:
    """The largest difference at a position of the axis, relative to the largest value there; infinite for other NaN."""
    a, b = (np.moveaxis(one, axis, 0).reshape(one.shape[axis], -1).astype(np.float64) for one in (wanted, given))
    if not (np.isnan(a) == np.isnan(b)).all():
        return np.inf
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    sizes = np.maximum(np.abs(a).max(axis=1, initial=0.0), np.finfo(np.float32).tiny)
    return float((np.abs(a - b).max(axis=1, initial=0.0) / sizes).max(initial=0.0))


def _tensors(
    model: Model, names: Sequence[str], inputs: Mapping[str, NDArray[Any]], what: str
) -> dict[str, NDArray[Any]]:
    draft = model.edit()
    known = {value.name for value in draft.graph.output}
    draft.graph.output.extend(ValueInfoProto(name=name) for name in sorted(set(names) - known))
    return Session(draft.finish(), what).run(inputs)
