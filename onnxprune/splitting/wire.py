"""What crosses the wire as integers: ranges from samples, the bytes that packing leaves, and nodes that round."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.errors import UsageError
from onnxprune.ir.comparing import TensorDifference
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.protos import captured_names

_LEAST_OPSET = 10
_LEVELS = 255
_HALF = 0.501
"""Of a step, what rounding to integers may be off, with what single precision adds."""
_LEAST = 1e-36
"""What single precision may lose beside its smallest numbers."""
_RELATIVE, _SUBNORMAL = 2.0**-11, 2.0**-25
"""What rounding to float16 may be off: of the value, and near zero."""


@dataclass(frozen=True)
class Rounding:
    """How a float tensor becomes bytes: ``value ≈ scale · (byte - zero)``, and bytes per sample that zlib leaves.

    ``low`` and ``high`` are the range that the bytes are for; what is beyond is received as its nearer end.
    """

    scale: float
    zero: int
    low: float
    high: float
    packed: float = 0.0


def roundings(model: Model, samples: Samples, tensors: Iterable[str]) -> dict[str, Rounding]:
    """Run samples and see what float tensors take as bytes; the range is that of all values.

    Args:
        model: the normalised model.
        samples: what to run it on.
        tensors: names of its inputs and of what its nodes make; those that are not float are left out.

    Raises:
        VerificationError: onnxruntime does not run the model.
        DataError: a value is not finite.
    """
    wanted = set(tensors)
    run = StagedRun(model, samples, "the model")
    found: dict[str, Rounding] = {}

    def see(names: Collection[str]) -> None:
        for name in names:
            batches = run.values(name)
            if batches[0].dtype in (np.float32, np.float64):
                found[name] = _rounding(batches, len(samples))

    see([name for name in samples.inputs if name in wanted])
    for index, node in enumerate(model.graph.node):
        names = [name for name in node.output if name in wanted]
        if names:
            run.advance(index + 1, names)
            see(names)
            run.drop(*names)
    return found


def _rounding(batches: Iterable[NDArray[np.generic]], count: int) -> Rounding:
    arrays = [np.asarray(batch, dtype=np.float32) for batch in batches]
    low = min(0.0, *(float(array.min(initial=0.0)) for array in arrays))
    high = max(0.0, *(float(array.max(initial=0.0)) for array in arrays))
    scale = float(np.float32((high - low) / _LEVELS))
    if not scale:  # nothing but zero was seen
        low, high, scale = 0.0, float(_LEVELS), 1.0
    zero = round(-low / scale)
    packed = 0
    for array in arrays:
        for sample in np.clip(np.rint(array / scale) + zero, 0, _LEVELS).astype(np.uint8):
            packed += len(zlib.compress(sample.tobytes(), 6))
    return Rounding(scale, zero, low, high, packed / count)


def codes_of(parts: Sequence[Model], whole: Model, coding: str, ranges: Mapping[str, Rounding]) -> tuple[Code, ...]:
    """How the floats that one part hands to another cross. Graph inputs that later parts read cross as they are.

    Args:
        parts: in the order in which they run, with floats between them.
        whole: the model that they are of, whose names are taken.
        coding: ``float16``, or ``int8`` (unsigned, with a zero point).
        ranges: of the tensors, for ``int8``.

    Raises:
        UsageError: a tensor has no range, or the operator set cannot round.
    """
    if coding == "int8" and whole.opset() < _LEAST_OPSET:
        raise UsageError(
            f"bytes on the wire need operator set {_LEAST_OPSET}, the model has {whole.opset()}; leave them as they are"
        )
    made = {value.name: value.type.tensor_type.elem_type for part in parts for value in part.graph.output}
    read = {value.name for part in parts for value in part.graph.input}
    wire = [name for name, kind in made.items() if name in read and kind == TensorProto.FLOAT]
    missing = [name for name in wire if coding == "int8" and name not in ranges]
    if missing:
        raise UsageError(f"the range of '{missing[0]}' is not known; give samples (--calibrate)")
    draft = whole.edit()
    return tuple(
        Code(name, draft.unique_name(f"{name}_sent"), draft.unique_name(f"{name}_received"), ranges.get(name), coding)
        for name in wire
    )


def coded(parts: Sequence[Model], whole: Model, codes: Sequence[Code]) -> tuple[Model, ...]:
    """Parts that hand on floats in fewer bytes: the one that makes a tensor ends with it, those that read it begin so.

    Raises:
        UsageError: a tensor is read in a body.
    """
    outputs = {value.name for value in whole.graph.output}
    return tuple(_coded(part, codes, outputs) for part in parts)


@dataclass(frozen=True)
class Code:
    """How one tensor crosses: what it is called on the wire, and where it has been read back."""

    name: str
    sent: str
    received: str
    rounding: Rounding | None
    coding: str

    @property
    def elem_type(self) -> int:
        return int(TensorProto.UINT8 if self.coding == "int8" else TensorProto.FLOAT16)

    def nodes(self, draft: Draft) -> tuple[NodeProto, NodeProto]:
        """What sends and what receives; their operands are added."""
        if self.coding != "int8" or self.rounding is None:
            return (
                helper.make_node("Cast", [self.name], [self.sent], name=self.sent, to=TensorProto.FLOAT16),
                helper.make_node("Cast", [self.sent], [self.received], name=self.received, to=TensorProto.FLOAT),
            )
        operands = [f"{self.sent}.scale", f"{self.sent}.zero"]
        draft.add_weight(operands[0], np.array(self.rounding.scale, np.float32))
        draft.add_weight(operands[1], np.array(self.rounding.zero, np.uint8))
        return (
            helper.make_node("QuantizeLinear", [self.name, *operands], [self.sent], name=self.sent),
            helper.make_node("DequantizeLinear", [self.sent, *operands], [self.received], name=self.received),
        )

    def difference(self, plain: NDArray[np.float32], received: NDArray[np.float32]) -> TensorDifference:
        """How far what was received is from what was to be sent; ``relative`` to what the coding may round off.

        For int8 this follows from the range, not from scale and zero point, so that wrong ones are noticed.
        """
        wanted, found = plain.astype(np.float64), received.astype(np.float64)
        if self.coding == "int8" and self.rounding is not None:
            low, high = self.rounding.low, self.rounding.high
            wanted = np.clip(wanted, low, high)
            allowed = np.full(wanted.shape, _HALF * (high - low) / _LEVELS + _LEAST)
        else:
            allowed = _RELATIVE * np.abs(wanted) + _SUBNORMAL
        with np.errstate(invalid="ignore"):
            # No integer stands for what is no number: random inputs may lead to it, samples did not.
            gaps = np.where((wanted == found) | np.isnan(wanted), 0.0, np.abs(wanted - found))
            shares = np.where(gaps > 0, gaps / allowed, 0.0)
        if not shares.size:
            return TensorDifference(self.name, "the wire", 0.0, 0.0, passed=True)
        at = np.unravel_index(int(shares.argmax()), shares.shape)
        reason = f"is received as {received[at]:.6g} where {plain[at]:.6g} was sent, in {self.coding}"
        if np.isinf(found[at]):
            reason += f", which ends at {np.finfo(np.float16).max:.0f}; let it cross plain, or as int8"
        return TensorDifference(
            self.name, "the wire", float(gaps.max()), float(shares[at]), passed=bool((shares <= 1).all()), reason=reason
        )


def _coded(part: Model, codes: Sequence[Code], outputs: Collection[str]) -> Model:
    draft = part.edit()
    values = {value.name: value for value in (*draft.graph.input, *draft.graph.output)}
    makes = {name for node in draft.graph.node for name in node.output}
    before, after = [], []
    for code in codes:
        if code.name not in values:
            continue
        send, receive = code.nodes(draft)
        sent = onnx.ValueInfoProto()
        sent.CopyFrom(values[code.name])
        sent.name, sent.type.tensor_type.elem_type = code.sent, code.elem_type
        if code.name in makes:
            after.append(send)
            if code.name in outputs:
                draft.graph.output.append(sent)
            else:
                values[code.name].CopyFrom(sent)
            continue
        if any(code.name in captured_names(node) for node in draft.graph.node):
            raise UsageError(f"'{code.name}' is read in a body and cannot cross in fewer bytes; leave it as it is")
        before.append(receive)
        draft.replace_uses({code.name: code.received})
        values[code.name].CopyFrom(sent)
    nodes = [*before, *draft.graph.node, *after]
    del draft.graph.node[:]
    draft.graph.node.extend(nodes)
    return draft.finish()
