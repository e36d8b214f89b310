"""Shared by tests of the coupling: small graphs, random choices of atoms, and an oracle for what pruning may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.atoms import Grouping
from onnxprune.analysis.propagation import Split
from onnxprune.pruning.certificate import Certificate
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.plan import Plan

Array = NDArray[Any]
Shape = tuple[int, ...]

#: The newest IR version that every onnxruntime in use reads.
IR_VERSION = 8


@dataclass
class GraphBuilder:
    """Writes a model node by node; weights are normally distributed, and names count up."""

    opset: int = 17
    seed: int = 0
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    domains: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def name(self, base: str) -> str:
        """A name that nothing else has."""
        return f"{base}_{len(self.nodes) + len(self.initializers)}"

    def input(self, name: str, shape: Sequence[int | str], elem_type: int = TensorProto.FLOAT) -> str:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, list(shape)))
        return name

    def output(self, name: str, shape: Sequence[int | str] | None = None, elem_type: int = TensorProto.FLOAT) -> None:
        """Declare a graph output; without a shape, it is inferred."""
        if shape is not None:
            self.outputs.append(helper.make_tensor_value_info(name, elem_type, list(shape)))
            return
        inferred = onnx.shape_inference.infer_shapes(self._reporting(name), data_prop=True).graph.output[0]
        if not inferred.type.tensor_type.HasField("shape"):
            # Shape inference knows not every operator, and not every computed extent; running the graph does.
            shape = run(self._reporting(name), self._zeros())[0].shape
            inferred = helper.make_tensor_value_info(name, elem_type, shape)
        self.outputs.append(inferred)

    def constant(self, value: Any, base: str = "const", dtype: Any = None) -> str:
        """Add an initialiser with this value."""
        name = self.name(base)
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """Add an initialiser that lists integers."""
        return self.constant(values, "ints", np.int64)

    def weight(self, *shape: int, fan_in: int | None = None, base: str = "w") -> str:
        """Add a random initialiser, scaled so that activations keep their size."""
        scale = 1.0 / np.sqrt(fan_in or max(int(np.prod(shape[1:])), 1))
        return self.constant(self.rng.standard_normal(shape) * scale, base, np.float32)

    def vector(self, *shape: int, positive: bool = False) -> str:
        """Add random values between 0.5 and 1.5, or between -1 and 1."""
        low, high = (0.5, 1.5) if positive else (-1.0, 1.0)
        return self.constant(self.rng.uniform(low, high, shape), "v", np.float32)

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that."""
        return self.ops(op_type, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        base = self.name(op_type.lower())
        names = [base if outputs == 1 else f"{base}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=base, domain=domain, **attributes))
        return names

    def model(self) -> ModelProto:
        """The model; onnx.checker finds no fault with it."""
        proto = self._model_of(helper.make_graph(self.nodes, "test", self.inputs, self.outputs, self.initializers))
        if not self.domains:
            onnx.checker.check_model(proto)
        return proto

    def _reporting(self, name: str) -> ModelProto:
        """The graph so far, with this tensor as its only output."""
        output = onnx.ValueInfoProto(name=name)
        return self._model_of(helper.make_graph(self.nodes, "test", self.inputs, [output], self.initializers))

    def _zeros(self) -> dict[str, Array]:
        types = {info.name: info.type.tensor_type for info in self.inputs}
        return {
            name: np.zeros([d.dim_value for d in t.shape.dim], dtype=helper.tensor_dtype_to_np_dtype(t.elem_type))
            for name, t in types.items()
        }

    def _model_of(self, graph: onnx.GraphProto) -> ModelProto:
        opsets = [helper.make_opsetid("", self.opset)]
        opsets.extend(helper.make_opsetid(domain, version) for domain, version in self.domains.items())
        ir_version = 10 if self.opset > 20 else IR_VERSION
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)

    # What differs between opsets, in the form that the opset wants.

    def squeeze(self, x: str, *axes: int) -> str:
        """Squeeze; axes are an attribute before opset 13."""
        return self._with_axes("Squeeze", x, axes, 13)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Unsqueeze; axes are an attribute before opset 13."""
        return self._with_axes("Unsqueeze", x, axes, 13)

    def reduce(self, kind: str, x: str, *axes: int, keepdims: int = 1) -> str:
        """ReduceMean and so on; axes are an attribute before opset 18 (ReduceSum: 13)."""
        return self._with_axes(kind, x, axes, 13 if kind == "ReduceSum" else 18, keepdims=keepdims)

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Split; sizes are an attribute before opset 13."""
        if self.opset < 13:
            return self.ops("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))
        return self.ops("Split", x, self.ints(*sizes), outputs=len(sizes), axis=axis)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Slice along one axis; bounds are attributes before opset 10, where steps did not exist."""
        if self.opset < 10:
            assert step == 1
            return self.op("Slice", x, starts=[start], ends=[end], axes=[axis])
        operands = [self.ints(start), self.ints(end), self.ints(axis)]
        if step != 1:
            operands.append(self.ints(step))
        return self.op("Slice", x, *operands)

    def pad(self, x: str, pads: Sequence[int], value: float = 0.0, mode: str = "constant") -> str:
        """Pad; amounts are an attribute before opset 11."""
        if self.opset < 11:
            return self.op("Pad", x, pads=list(pads), value=value, mode=mode)
        operands = [self.ints(*pads)]
        if mode == "constant":
            operands.append(self.constant(value, dtype=np.float32))
        return self.op("Pad", x, *operands, mode=mode)

    def upsample(self, x: str, scales: Sequence[float]) -> str:
        """Nearest upsampling: Upsample before opset 10, Resize since."""
        factors = list(map(float, scales))
        if self.opset < 9:
            return self.op("Upsample", x, scales=factors, mode="nearest")
        operand = self.constant(factors, dtype=np.float32)
        if self.opset == 9:
            return self.op("Upsample", x, operand, mode="nearest")
        if self.opset == 10:
            return self.op("Resize", x, operand, mode="nearest")
        roi = "" if self.opset >= 13 else self.constant([], dtype=np.float32)
        return self.op(
            "Resize", x, roi, operand, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )

    def _with_axes(self, op_type: str, x: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        if self.opset < since:
            return self.op(op_type, x, axes=list(axes), **attributes)
        return self.op(op_type, x, self.ints(*axes), **attributes)


@dataclass(frozen=True)
class Pruned:
    """What a test pruned: the analysis before, the plan, the result and its certificate."""

    analysis: Analysis
    plan: Plan
    model: onnxprune.Model
    certificate: Certificate


def random_atoms(analysis: Analysis, rng: np.random.Generator, share: float | None = None) -> NDArray[np.int64]:
    """A random consistent choice of atoms: no axis becomes empty, and cells of a group lose equally many.

    From every group go none, some or as many units as can, or ``share`` of them.
    """
    coupling = analysis.coupling
    kept = coupling.extents.copy()
    chosen: list[NDArray[np.int64]] = []
    for place in rng.permutation(len(coupling.groups)):
        group = coupling.groups[int(place)]
        taken = group.multiplicity
        most = min(group.units, int(((kept[group.classes] - 1) // taken).min()))
        wanted = (
            int(rng.choice([0, most, int(rng.integers(0, most + 1))])) if share is None else int(share * group.units)
        )
        units = min(wanted, most)
        kept[group.classes] -= taken * units
        for cell, take in enumerate(group.take.tolist()):
            members = group.atoms[group.cells == cell]
            chosen.append(np.sort(rng.choice(members, units * take, replace=False)))
    return np.concatenate(chosen or [np.zeros(0, dtype=np.int64)])


def prune_random(
    model: ModelProto,
    seed: int = 0,
    share: float | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    grouping: Grouping = Grouping.ALIGNED,
    split: Split = Split.FINEST,
) -> Pruned:
    """Remove random atoms from a model and check everything that can be checked; see :func:`assert_certified`."""
    analysis = onnxprune.analyze(model, input_shapes, split=split.value).under(grouping)
    return assert_certified(model, analysis, random_atoms(analysis, np.random.default_rng(seed), share))


def assert_certified(model: ModelProto, analysis: Analysis, atoms: NDArray[np.int64]) -> Pruned:
    """Remove atoms from a model and demand: valid, runs, certified, nothing empty, everything removed is gone.

    Where only exact groups lose atoms, every tensor of the pruned model is compared, at the kept positions, with a
    masked original that is built here and owes nothing to the certificate.
    """
    settings = {"split": analysis.split.value, "input_shapes": dict(analysis.shapes.given)}
    plan = Plan(removed_by_axis(analysis, atoms), settings)
    pruned = onnxprune.apply(model, plan)
    proto = pruned.to_proto()
    onnx.checker.check_model(proto)
    certificate = onnxprune.verify(model, pruned, plan)
    assert certificate.complete, certificate.sentences
    _assert_tensors(analysis, plan, proto, exact=not certificate.approximate)
    _assert_weights(analysis, plan, proto)
    return Pruned(analysis, plan, pruned, certificate)


# The oracle


def _assert_tensors(analysis: Analysis, plan: Plan, pruned: ModelProto, exact: bool) -> None:
    original = analysis.model.to_proto()
    feeds = _feeds(analysis)
    masked = _masked(original, plan, analysis)
    # What has no known shape is not analysed: it may shrink with what it is computed from, if nobody reads it.
    # Shape arithmetic tells the extents of what has shrunk; who uses it is compared.
    names = sorted(_made(original) & _made(pruned) & set(analysis.shapes.extents) - _of_shapes(original))
    expected = _run_exposed(masked, names, feeds)
    got = _run_exposed(pruned, names, feeds)
    for name in names:
        wanted, found = expected[name], got[name]
        for dim, positions in plan.removed.get(name, {}).items():
            wanted = np.delete(wanted, positions, axis=dim)
        assert found.shape == wanted.shape, f"'{name}' has shape {found.shape}, expected {wanted.shape}"
        assert found.size, f"'{name}' is empty: {found.shape}"
        if exact:
            difference = _relative(wanted, found)
            # Zero up to rounding (a lone value less its mean) may have been divided by the root of a small epsilon.
            allowed = 1e-4 if np.any(wanted) else 1e-3
            assert difference <= allowed, f"'{name}' differs from the masked original by {difference:.2e}"


def _assert_weights(analysis: Analysis, plan: Plan, pruned: ModelProto) -> None:
    """What the plan names is gone from weights, and no axis is empty, as far as shape inference can tell."""
    for weight in pruned.graph.initializer:
        for dim, positions in plan.removed.get(weight.name, {}).items():
            left = analysis.shapes.extents[weight.name][dim] - len(positions)
            assert weight.dims[dim] == left, f"{weight.name}[{dim}] has extent {weight.dims[dim]}, expected {left}"
    for info in onnx.shape_inference.infer_shapes(pruned, data_prop=True).graph.value_info:
        extents = [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        assert 0 not in extents, f"'{info.name}' has an empty axis"


def _feeds(analysis: Analysis) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    feeds: dict[str, Array] = {}
    for name in analysis.graph.inputs:
        dtype = helper.tensor_dtype_to_np_dtype(analysis.shapes.elem_types[name])
        shape = analysis.shapes.binding[name]
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[name] = values.astype(dtype)
    return feeds


def _of_shapes(model: ModelProto) -> set[str]:
    """The tensors that follow from weights and extents alone, whatever values the inputs hold."""
    given = {i.name for i in model.graph.input} - {w.name for w in model.graph.initializer}
    for node in model.graph.node:
        bodies = any(a.HasField("g") for a in node.attribute)
        if node.op_type not in ("Shape", "Size") and (bodies or given & set(node.input)):
            given |= set(node.output)
    return _made(model) - given - {o.name for o in model.graph.output}


def _made(proto: ModelProto) -> set[str]:
    return {name for node in proto.graph.node for name in node.output if name}


def contracted(node: NodeProto, rank: Mapping[str, int], axes: Sequence[int] | None) -> list[tuple[int, int]]:
    """(input, dimension) pairs whose products or magnitudes a node adds up, so that zeros there mean absence."""
    if not node.input or node.input[0] not in rank:
        return []
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in ("Conv", "ConvTranspose"):
        return [(0, 1)]
    if node.op_type == "Gemm":
        return [(0, 0 if attributes.get("transA", 0) else 1)]
    if node.op_type == "MatMul":
        return [(0, rank[node.input[0]] - 1)]
    if node.op_type == "Einsum":
        return _summed_labels(attributes["equation"].decode())
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return [(0, 2), (2, 2)]
    if node.op_type == "LpNormalization":
        return [(0, attributes.get("axis", -1) % rank[node.input[0]])]
    if node.op_type in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"):
        dims = range(rank[node.input[0]]) if axes is None else axes
        return [(0, dim % rank[node.input[0]]) for dim in dims]
    return []


def _summed_labels(equation: str) -> list[tuple[int, int]]:
    """The first (operand, dimension) of every label that the result of an Einsum does not have."""
    operands, result = equation.replace(" ", "").split("->")
    places: dict[str, tuple[int, int]] = {}
    for index, labels in enumerate(operands.split(",")):
        for dim, label in enumerate(labels):
            places.setdefault(label, (index, dim))
    return [place for label, place in places.items() if label not in result]


def _masked(original: ModelProto, plan: Plan, analysis: Analysis) -> ModelProto:
    """The original in which every contraction reads zeros at removed positions of its first operand."""
    proto = ModelProto()
    proto.CopyFrom(original)
    extents = analysis.shapes.extents
    rank = {name: len(shape) for name, shape in extents.items()}
    nodes: list[NodeProto] = []
    for node in original.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        for index, dim in contracted(node, rank, _reduced_axes(node, analysis)):
            removed = plan.removed.get(node.input[index], {}).get(dim)
            if removed:
                shape = [n if d == dim else 1 for d, n in enumerate(extents[node.input[index]])]
                mask = np.ones(shape, dtype=np.float32)
                mask[(slice(None),) * dim + (list(removed),)] = 0
                name = f"{node.output[0]}__oracle_{index}_{dim}"
                proto.graph.initializer.append(numpy_helper.from_array(mask, f"{name}_mask"))
                nodes.append(helper.make_node("Mul", [copy.input[index], f"{name}_mask"], [name]))
                copy.input[index] = name
        nodes.append(copy)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _reduced_axes(node: NodeProto, analysis: Analysis) -> list[int] | None:
    for attribute in node.attribute:
        if attribute.name == "axes":
            return list(attribute.ints)
    if len(node.input) > 1 and node.op_type.startswith("Reduce"):
        value = analysis.shapes.value(node.input[1])
        return None if value is None else [int(v) for v in value.reshape(-1)]
    return None


def _run_exposed(proto: ModelProto, names: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Values of intermediate tensors: the model is run with all of them as outputs."""
    exposed = ModelProto()
    exposed.CopyFrom(proto)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, run(exposed, feeds), strict=True))


def run(proto: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs of a model in onnxruntime, as written: one thread, no optimisation."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    results: list[Array] = session.run(None, {k: v for k, v in feeds.items() if k in wanted})
    return results


def _relative(wanted: Array, found: Array) -> float:
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(wanted, found) else float("inf")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    gap = float(np.abs(a - b).max(initial=0.0))
    scale = float(np.abs(a).max(initial=0.0))
    # Tensors that cancel to almost nothing have no digits left to compare.
    return gap / max(scale, 1e-2)
