"""The proof of a quantised model: it is the float model with rounded weights, and onnxruntime computes what it says.

Three things are compared, none of them by code that wrote the file. The graph without QuantizeLinear and
DequantizeLinear is the float graph; every weight and bias is the float one within half a step, and the range of every
tensor is the one that was measured. And what onnxruntime's integer kernels give for every node, on the very operands
that they were given, is within one step of what numpy computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import node_title
from onnxprune.ir.session import Session
from onnxprune.pruning.quantization.calibrating import Ranges
from onnxprune.pruning.quantization.simulation import (
    Array,
    FloatArray,
    Quantised,
    evaluate,
    float_kernel,
    in_integers,
    quantise,
)

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
#: How onnxruntime.quantization calls the tensor that a graph output is rounded from.
_RENAMED = "_QuantizeLinear_Input"
#: What quantised tensors have no need of: their range ends where these would cut.
_CUTTING = ("Clip", "Relu")
#: Steps that a range may be off the measured one: its zero is rounded to a whole step, and so is its scale.
_RANGE_STEPS = 1.5
_SHARE = 0.02
#: Of float32's relative precision, what sums may lose.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class QuantizationCertificate:
    """What was compared, and what was found.

    Attributes:
        nodes: nodes whose results in onnxruntime were compared with the simulation.
        elements: how many results that were.
        off: how many of them differ, by a step.
        worst: the largest difference, in steps of the output's scale.
        weights: constants that were compared with the float model's.
        by_floats: nodes without products that were compared with onnxruntime's float kernels instead.
        ranges: tensors whose ranges were compared with the measured ones.
        unknown: nodes on integers that onnx's reference does not know, and that were not simulated.
        faults: what is wrong.
    """

    nodes: int
    elements: int
    off: int
    worst: int
    weights: int
    ranges: int
    by_floats: int
    unknown: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def __bool__(self) -> bool:
        return self.passed

    def require(self) -> None:
        """Raises VerificationError if something is wrong."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            raise VerificationError(f"the quantised model is not what it should be: {self.faults[0]}{more}")

    @property
    def sentences(self) -> list[str]:
        """What is proven, or what is wrong."""
        if self.faults:
            return [f"Not proven: {fault}." for fault in self.faults]
        lines = [
            f"Weights: {self.weights} constants are the float model's within half a step, {self.ranges} ranges the "
            "measured ones; nothing else was changed.",
            f"Integers: {self.nodes} nodes compute in onnxruntime what numpy does, within one step of the output's "
            f"scale ({self.off} of {self.elements} results differ).",
        ]
        if self.by_floats:
            lines.append(
                f"Of these, {self.by_floats} without products were compared with onnxruntime's float kernels, because "
                "onnx's reference implementation differs."
            )
        if self.unknown:
            lines.append(f"Not simulated: {', '.join(self.unknown[:5])}{' ...' if len(self.unknown) > 5 else ''}.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {**asdict(self), "passed": self.passed}


def certify_quantised(
    prepared: Model, quantised: Model, ranges: Ranges, inputs: Mapping[str, NDArray[Any]]
) -> QuantizationCertificate:
    """Compare a quantised model with the float one that it was made from, and with a simulation of its integers.

    Args:
        prepared: the float model that was quantised.
        quantised: the result.
        ranges: what its scales are to follow from.
        inputs: what to run it on.

    Raises:
        VerificationError: onnxruntime does not run it.
    """
    view = _View(quantised)
    faults = [*_graph_faults(prepared, view)]
    constants = [*_constants(prepared, view)]
    bounds = [*_ranges(prepared, view, ranges)]
    faults += [fault for fault in (*constants, *bounds) if fault]
    cells = [*_simulated(view, inputs)]
    faults += [cell.fault for cell in cells if cell.fault]
    return QuantizationCertificate(
        nodes=sum(cell.elements > 0 for cell in cells),
        elements=sum(cell.elements for cell in cells),
        off=sum(cell.off for cell in cells),
        worst=max((cell.worst for cell in cells), default=0),
        weights=len(constants),
        ranges=len(bounds),
        by_floats=len({cell.name for cell in cells if cell.by_floats}),
        unknown=tuple(cell.name for cell in cells if not cell.elements and not cell.fault),
        faults=tuple(faults),
    )


class _View:
    """A quantised graph with its rounding seen through."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.maker = {name: node for node in model.graph.node for name in node.output if name}
        self.nodes = [node for node in model.graph.node if node.op_type not in (_QUANTIZE, _DEQUANTIZE)]
        self.rounding = [node for node in model.graph.node if node.op_type == _QUANTIZE]
        self.by_name = {node.name: node for node in self.nodes}
        self.opset = {entry.domain: entry.version for entry in model.skeleton.opset_import}

        # What makes a graph output makes another tensor now, which the output is rounded from.
        outputs = {output.name: self._made_from(output.name) for output in model.graph.output}
        self.renamed = {made: name for name, made in outputs.items() if made == f"{name}{_RENAMED}"}

    def dequantizer(self, name: str) -> NodeProto | None:
        """The DequantizeLinear that makes a tensor."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == _DEQUANTIZE else None

    def source(self, name: str) -> str:
        """The tensor of the float graph that a tensor stands for; constants stand for themselves."""
        made = self._made_from(name)
        return self.renamed.get(made, made)

    def _made_from(self, name: str) -> str:
        while (node := self.maker.get(name)) is not None and node.op_type in (_QUANTIZE, _DEQUANTIZE):
            name = node.input[0]
        return name

    def parameters(self, node: NodeProto) -> tuple[Array, Array]:
        """Scale and zero point of a QuantizeLinear or DequantizeLinear."""
        scale = self.model.weights[node.input[1]].array
        if len(node.input) > 2 and node.input[2]:
            return scale, self.model.weights[node.input[2]].array
        held = self.model.weights.get(node.input[0])
        return scale, np.zeros(scale.shape, np.uint8 if held is None else held.dtype)

    def constant(self, node: NodeProto) -> Quantised:
        """What a DequantizeLinear of a constant makes."""
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        return Quantised(self.model.weights[node.input[0]].array, *self.parameters(node), axis)


def _graph_faults(prepared: Model, view: _View) -> Iterator[str]:
    """Where the graph without rounding is not the float graph."""
    cut = {}
    for node in prepared.graph.node:
        if node.name not in view.by_name and node.op_type in _CUTTING:
            cut[node.output[0]] = node.input[0]

    def plain(name: str) -> str:
        while name in cut:
            name = cut[name]
        return name

    def seen(name: str) -> str:
        return plain(view.source(name))

    wanted = {node.name: node for node in prepared.graph.node if plain(node.output[0]) == node.output[0]}
    for name in wanted.keys() - view.by_name.keys():
        yield f"node '{name}' is not in the quantised graph"
    for name in view.by_name.keys() - wanted.keys():
        yield f"node '{name}' is not in the float graph"
    for name in wanted.keys() & view.by_name.keys():
        before, after = wanted[name], view.by_name[name]
        same = (before.op_type, before.domain) == (after.op_type, after.domain)
        if not same or _said(before) != _said(after):
            yield f"node '{name}' is another operator, or has other attributes"
        elif list(map(plain, before.output)) != list(map(seen, after.output)) or len(before.input) != len(after.input):
            yield f"node '{name}' makes other tensors, or has other operands"
        else:
            for old, new in zip(before.input, after.input, strict=True):
                if old not in prepared.weights and plain(old) != seen(new):
                    yield f"node '{name}' reads '{view.source(new)}' instead of '{old}'"
    for wanted_output, output in zip(prepared.graph.output, view.model.graph.output, strict=True):
        if wanted_output.name != output.name or plain(output.name) != seen(output.name):
            yield f"output '{wanted_output.name}' is made from '{view.source(output.name)}'"
    # What is cut at the ends of a range must be cut by the one range that all readers see.
    for node in view.model.graph.node:
        if node.op_type == _DEQUANTIZE and (maker := view.maker.get(node.input[0])) is not None:
            pairs = zip(view.parameters(node), view.parameters(maker), strict=True)
            if not all(np.array_equal(a, b) for a, b in pairs):
                yield f"'{maker.input[0]}' is dequantised with another scale or zero point than it was quantised with"


def _said(node: NodeProto) -> dict[str, bytes]:
    return {a.name: a.SerializeToString(deterministic=True) for a in node.attribute}


def _constants(prepared: Model, view: _View) -> Iterator[str]:
    """For every constant that a node reads: what is wrong with it, or nothing."""
    before = {node.name: node for node in prepared.graph.node}
    for node in view.nodes:
        if node.name not in before or len(before[node.name].input) != len(node.input):
            continue
        for old, new in zip(before[node.name].input, node.input, strict=True):
            if old not in prepared.weights:
                continue
            wanted = prepared.weights[old].array
            rounded = view.dequantizer(new)
            if rounded is None or rounded.input[0] not in view.model.weights:
                held = view.model.weights.get(view.source(new))
                equal = held is not None and np.array_equal(held.array, wanted, equal_nan=wanted.dtype.kind == "f")
                yield "" if equal else f"'{old}', which '{node.name}' reads, is not the float model's"
                continue
            found = view.constant(rounded)
            if found.values.shape != wanted.shape:
                yield f"'{old}', which '{node.name}' reads, has another shape"
                continue
            if found.values.dtype == np.int32 and not _fits(view, node, found.scale):
                # Kernels add biases to sums of products as they are, whatever scale the file tells.
                yield f"the scale of '{old}', which '{node.name}' reads, is not that of the products it is added to"
                continue
            step = (
                found.real() * 0
                + Quantised(np.ones_like(found.values), found.scale, np.zeros_like(found.zero), found.axis).real()
            )
            off = np.abs(found.real() - wanted) / step
            # Weights end at the outermost number; biases are of 32 bits.
            yield (
                ""
                if float(off.max(initial=0.0)) <= 0.5 + 1e-3 + _precision(wanted, step)
                else (f"'{old}', which '{node.name}' reads, is {off.max():.1f} steps off the float model's")
            )


def _fits(view: _View, node: NodeProto, scale: Array) -> bool:
    """Whether the scale of a bias is the product of those of its node's factors."""
    factors = [view.dequantizer(name) for name in node.input[:2]]
    if any(factor is None for factor in factors):
        return False
    first, second = (view.parameters(factor)[0].astype(np.float64) for factor in factors if factor is not None)
    return bool(np.allclose(first * second, scale, rtol=1e-4, atol=0))


def _precision(wanted: Array, step: FloatArray) -> float:
    """Steps that float32 cannot tell apart: those of biases are fine."""
    return float((np.abs(wanted) * np.finfo(np.float32).eps / step).max(initial=0.0))


def _ranges(prepared: Model, view: _View, ranges: Ranges) -> Iterator[str]:
    """For every tensor that is quantised: what is wrong with its range, or nothing."""
    readers: dict[str, str] = {}
    for node in prepared.graph.node:
        if node.op_type in _CUTTING and node.name not in view.by_name:
            readers[node.input[0]] = node.output[0]
    for node in view.rounding:
        scale, zero = view.parameters(node)
        limits, step = np.iinfo(zero.dtype), float(scale)
        low, high = (step * (limit - float(zero)) for limit in (limits.min, limits.max))
        name = view.renamed.get(node.input[0], node.input[0])
        while name in readers:
            name = readers[name]
        wanted = ranges.found.get(name)
        if wanted is None:
            yield f"the range of '{name}' was not measured"
            continue
        least, most = min(float(wanted[0]), 0.0), max(float(wanted[1]), 0.0)
        room = _RANGE_STEPS * step
        cut = low > least + room or high < most - room
        wide = high - low > (most - least) * (1 + _SHARE) + room
        yield (
            ""
            if not (cut or wide) or _shared(view, node, scale, zero)
            else (f"'{name}' is quantised from {low:.4g} to {high:.4g}, and its range is {least:.4g} to {most:.4g}")
        )


def _shared(view: _View, node: NodeProto, scale: Array, zero: Array) -> bool:
    """Whether a range is that of what the tensor is made from, or the whole unit interval."""
    if np.isclose(float(scale) * np.iinfo(zero.dtype).max, 1.0, rtol=0.01) and not zero.any():
        return True
    maker = view.maker.get(node.input[0])
    for name in () if maker is None else maker.input:
        before = view.dequantizer(name)
        if before is not None and all(map(np.array_equal, view.parameters(before), (scale, zero))):
            return True
    return False


@dataclass(frozen=True)
class _Cell:
    """One node beside its simulation; no elements where there was none."""

    name: str
    elements: int = 0
    off: int = 0
    worst: int = 0
    fault: str = ""
    by_floats: bool = False


def _simulated(view: _View, inputs: Mapping[str, NDArray[Any]]) -> Iterator[_Cell]:
    readers: dict[str, list[NodeProto]] = {}
    for node in view.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    rounded = {
        name: [reader for reader in readers.get(name, []) if reader.op_type == _QUANTIZE]
        for node in view.nodes
        for name in node.output
    }
    on_integers = {node.name for node in view.nodes if any(view.dequantizer(name) is not None for name in node.input)}
    asked = {node.output[0] for node in view.rounding}
    for node in view.nodes:
        asked.update(n for n in node.input if n and view.dequantizer(n) is None and n not in view.model.weights)
        if node.name not in on_integers:
            asked.update(n for n in node.output if rounded.get(n))
        else:
            asked.update(n for n in node.output if n and not rounded[n])
    asked.update(n.input[0] for n in view.rounding if n.input[0] not in view.maker)
    values = {**inputs, **_observed(view.model, asked - set(inputs), inputs)}

    def operand(name: str) -> Quantised | Array | None:
        if not name:
            return None
        node = view.dequantizer(name)
        if node is None:
            held = view.model.weights.get(name)
            return values[name] if held is None else held.array
        if node.input[0] in view.model.weights:
            return view.constant(node)
        return Quantised(values[node.input[0]], *view.parameters(node))

    for node in view.rounding:
        maker = view.maker.get(node.input[0])
        if maker is None or maker.name not in on_integers:
            yield _compare(node_title(node), node, view, values[node.input[0]].astype(np.float64), values)
    for node in view.nodes:
        if node.name not in on_integers:
            continue
        operands = [operand(name) for name in node.input]
        found = evaluate(node, operands, view.opset)
        cells = [*_beside(node, found, rounded, view, values)]
        if not in_integers(node, operands) and (not found or any(cell.fault for cell in cells)):
            # Not all that onnx's reference implementation says is right (BatchNormalization before opset 14, MaxPool
            # with ceil_mode, Sigmoid of large numbers): what onnxruntime computes in float32 decides.
            found = float_kernel(node, operands, view.model)
            cells = [replace(cell, by_floats=True) for cell in _beside(node, found, rounded, view, values)]
        yield from cells or [_Cell(f"{node.op_type} '{node.name}'")]


def _beside(
    node: NodeProto,
    found: Sequence[FloatArray] | None,
    rounded: Mapping[str, Sequence[NodeProto]],
    view: _View,
    values: Mapping[str, Array],
) -> Iterator[_Cell]:
    """What onnxruntime has for the results of a node, beside those found."""
    for name, result in zip((n for n in node.output if n), found or (), strict=False):
        for reader in rounded[name]:
            yield _compare(node.name, reader, view, result, values)
        if not rounded[name]:
            yield _compare_floats(node, name, result, values[name])


def _observed(model: Model, names: set[str], inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """What onnxruntime gives for inner tensors, by the kernels that it takes for the model as it is."""
    draft = model.edit()
    known = {output.name for output in draft.graph.output}
    draft.graph.output.extend(ValueInfoProto(name=name) for name in sorted(names - known))
    return Session(draft.finish(), "the quantised model", threads=1).run(inputs)


def _compare(name: str, rounding: NodeProto, view: _View, result: FloatArray, values: Mapping[str, Array]) -> _Cell:
    scale, zero = view.parameters(rounding)
    wanted, found = quantise(result, scale, zero), values[rounding.output[0]].astype(np.int64)
    if wanted.shape != found.shape:
        return _Cell(name, fault=f"'{name}' gives {found.shape} in onnxruntime and {wanted.shape} in numpy")
    steps = np.abs(wanted - found)
    worst = int(steps.max(initial=0))
    fault = f"'{name}' is {worst} steps off in onnxruntime" if worst > 1 else ""
    return _Cell(name, steps.size, int((steps > 0).sum()), worst, fault)


def _compare_floats(node: NodeProto, name: str, wanted: FloatArray, found: Array) -> _Cell:
    if found.dtype.kind != "f":
        same = np.array_equal(wanted, found)
        return _Cell(node.name, max(found.size, 1), fault="" if same else f"'{name}' differs in onnxruntime")
    if wanted.shape != found.shape:
        return _Cell(node.name, fault=f"'{name}' gives {found.shape} in onnxruntime and {wanted.shape} in numpy")
    allowed = _ROUNDING * max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
    worst = float(np.abs(wanted - found).max(initial=0.0))
    fault = f"'{name}' is {worst:.2g} off in onnxruntime" if not worst <= allowed else ""
    return _Cell(node.name, max(found.size, 1), fault=fault)
