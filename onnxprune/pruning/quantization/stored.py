"""The weights of a file in a smaller form, as numpy reads them, beside those that they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model

FloatArray = NDArray[np.float64]

#: What float32 cannot tell apart, in steps.
_ROUNDING = 1e-2


@dataclass(frozen=True)
class Stored:
    """A weight as it is stored: its name in the float model, its values and, for each, the size of a step.

    ``ends`` says which values lie at the outermost number: what is beyond was cut there.
    """

    name: str
    values: FloatArray
    steps: FloatArray
    ends: NDArray[np.bool_]


@dataclass(frozen=True)
class StoredWeights:
    """How many weights were compared with the float model's, and the largest difference in steps."""

    count: int
    worst: float

    @property
    def sentence(self) -> str:
        """What is proven."""
        return f"Weights: {self.count} are the float model's within a step ({self.worst:.3f} steps at most)."


def compare_weights(model: Model, converted: Model) -> StoredWeights:
    """Compare the weights of a converted model with those of the float model, by numpy alone.

    Raises:
        VerificationError: one is more than half a step off (at the outermost number, one step), or has no original.
    """
    count, worst = 0, 0.0
    for one in stored_weights(model, converted):
        wanted = model.weights.get(one.name)
        if wanted is None or wanted.shape != one.values.shape:
            raise VerificationError(f"the weight '{one.name}' of the converted model is none of the float model's")
        off = np.abs(one.values - wanted.array)
        # A block of zeros has no step; what is in it has to be zero.
        off = np.divide(off, one.steps, out=np.where(off > 0, np.inf, 0.0), where=one.steps > 0)
        over = off - np.where(one.ends, 1.0, 0.5)
        if not float(over.max(initial=-1.0)) <= _ROUNDING:
            raise VerificationError(f"the weight '{one.name}' is {float(off.max()):.2f} steps off the float model's")
        count, worst = count + 1, max(worst, float(off.max(initial=0.0)))
    return StoredWeights(count, worst)


def stored_weights(model: Model, converted: Model) -> Iterator[Stored]:
    """The weights that a file holds in a smaller form."""
    makers = {name: node for node in converted.graph.node for name in node.output}
    for name, weight in model.weights.items():
        held = converted.weights.get(name)
        if held is not None and held.dtype == np.float16 and weight.dtype == np.float32:
            steps = np.spacing(np.abs(held.array)).astype(np.float64)
            # What is no zero stays none: the smallest numbers may be a step off.
            yield Stored(name, held.array.astype(np.float64), steps, np.abs(held.array) <= np.float16(6e-8))
        maker = makers.get(name)
        if maker is not None and maker.op_type == "Mul" and maker.input[1] in converted.weights:
            cast = makers[maker.input[0]]
            numbers, scale = converted.weights[cast.input[0]].array, converted.weights[maker.input[1]].array
            yield _scaled(name, numbers, scale, np.zeros(1))
    for node in converted.graph.node:
        if node.op_type == "MatMulNBits":
            yield _blocks(node, converted)
        if node.op_type == "MatMulInteger" and node.input[1] in converted.weights:
            yield _named(node.input[1], converted, slice(None))
        if node.op_type == "DynamicQuantizeLSTM":
            for number in node.input[1:3]:
                yield _named(number, converted, (slice(None), None, slice(None)), turned=(0, 2, 1))


def _scaled(
    name: str, numbers: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], turned: tuple[int, ...] = ()
) -> Stored:
    step = np.broadcast_to(scale.astype(np.float64), numbers.shape)
    values = (numbers.astype(np.float64) - zero.astype(np.float64)) * step
    limits = np.iinfo(numbers.dtype)
    ends = (numbers == limits.min) | (numbers == limits.max)
    if turned:
        values, step, ends = values.transpose(turned), step.transpose(turned), ends.transpose(turned)
    return Stored(name, values, step, ends)


def _named(number: str, converted: Model, place: Any, *, turned: tuple[int, ...] = ()) -> Stored:
    """A weight of onnxruntime's dynamic quantisation, which says by names what belongs together."""
    base = number.removesuffix("_quantized")
    scale, zero = (converted.weights[f"{base}_{what}"].array for what in ("scale", "zero_point"))
    if scale.ndim:
        scale, zero = scale[place], zero[place]
    return _scaled(base, converted.weights[number].array, scale, zero, turned)


def _blocks(node: NodeProto, converted: Model) -> Stored:
    """A weight of MatMulNBits, [K, N]: 4-bit numbers, two in a byte, a scale and a zero point for every block of K."""
    said = {a.name: a.i for a in node.attribute}
    depth, width, block = said["K"], said["N"], said["block_size"]
    packed, scales, zeros = (converted.weights[name].array for name in node.input[1:4])
    blocks = packed.shape[1]
    numbers = _nibbles(packed)[:, :, :block]
    zero = _nibbles(zeros.reshape(width, -1))[:, :blocks, None]
    steps = np.broadcast_to(scales.astype(np.float64).reshape(width, blocks, 1), numbers.shape)
    values = (numbers - zero) * steps
    ends = (numbers == 0) | (numbers == 15)
    flat = (part.reshape(width, blocks * block)[:, :depth].T for part in (values, np.abs(steps), ends))
    values, steps, ends = flat
    return Stored(node.input[1].removesuffix("_Q4"), values, steps, ends)


def _nibbles(packed: NDArray[Any]) -> FloatArray:
    """The 4-bit numbers of bytes, the lower half first; twice as many along the last axis."""
    halves = np.stack([packed & 15, packed >> 4], axis=-1)
    return halves.reshape(*packed.shape[:-1], -1).astype(np.float64)
