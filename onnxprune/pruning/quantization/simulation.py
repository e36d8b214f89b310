"""The integer arithmetic of a quantised model in numpy, one node at a time.

A node is given the very values that onnxruntime gave it, so that a difference is its own. What ONNX says of it:
dequantise the operands, compute, quantise the result. A convolution or product of integers is computed in integers
(float64 holds their sums exactly).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session

Array = NDArray[Any]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Quantised:
    """A tensor of integers; ``scale`` and ``zero`` are scalars, or vectors along ``axis``."""

    values: Array
    scale: Array
    zero: Array
    axis: int = 1

    def centred(self) -> FloatArray:
        """The integers less their zero point."""
        return self.values.astype(np.float64) - self._spread(self.zero)

    def real(self) -> FloatArray:
        """The numbers that the integers stand for."""
        return self.centred() * self._spread(self.scale)

    def steps(self) -> FloatArray:
        """What one more stands for, for every integer."""
        return np.broadcast_to(self._spread(self.scale), self.values.shape)

    def _spread(self, parameter: Array) -> FloatArray:
        flat = parameter.astype(np.float64)
        if flat.size == 1 or self.values.ndim < 1:
            return flat.reshape(())
        return flat.reshape([-1 if dim == self.axis % self.values.ndim else 1 for dim in range(self.values.ndim)])


def quantise(values: FloatArray, scale: Array, zero: Array) -> NDArray[np.int64]:
    """Integers for numbers, by ONNX's QuantizeLinear for a whole tensor: halves go to the even neighbour."""
    limits = np.iinfo(zero.dtype)
    steps = np.rint(values / float(scale.reshape(-1)[0])) + float(zero.reshape(-1)[0])
    return np.clip(steps, limits.min, limits.max).astype(np.int64)


def evaluate(
    node: onnx.NodeProto, operands: Sequence[Quantised | Array | None], opset: Mapping[str, int]
) -> list[FloatArray] | None:
    """The node's outputs for these operands; None for what onnx does not define.

    Args:
        node: the node, as in the float model.
        operands: quantised ones, plain ones, and None for those that are left out.
        opset: the version of each domain.
    """
    if in_integers(node, operands):
        return [_PRODUCTS[node.op_type](node, operands)]
    return _reference(node, operands, opset)


def in_integers(node: onnx.NodeProto, operands: Sequence[Quantised | Array | None]) -> bool:
    """Whether it is a product that is computed in integers here."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _PRODUCTS:
        return False
    return isinstance(operands[0], Quantised) and operands[0].scale.size == 1 and isinstance(operands[1], Quantised)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _real(operand: Quantised | Array) -> FloatArray:
    return operand.real() if isinstance(operand, Quantised) else operand.astype(np.float64)


def _flat(parameter: Array) -> FloatArray:
    return parameter.astype(np.float64).reshape(-1)


def _conv(node: onnx.NodeProto, operands: Sequence[Quantised | Array | None]) -> FloatArray:
    """x (N, C, d...), w (M, C/group, k...), bias (M)."""
    said = _attributes(node)
    x, w = operands[0], operands[1]
    assert isinstance(x, Quantised)
    assert isinstance(w, Quantised)
    data, weight = x.centred(), w.centred()
    rank, groups = data.ndim - 2, int(said.get("group", 1))
    kernel, strides = weight.shape[2:], said.get("strides", [1] * rank)
    dilations = said.get("dilations", [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(said, data.shape[2:], reach, strides)
    padded = np.pad(data, [(0, 0), (0, 0), *pads])
    windows = sliding_window_view(padded, reach, axis=tuple(range(2, rank + 2)))
    steps = [1, 1, *strides, *dilations]
    windows = windows[tuple(slice(None, None, step) for step in steps)]
    samples, channels, *out = windows.shape[: rank + 2]
    filters, depth = weight.shape[0] // groups, channels // groups
    # (N, groups, depth, out..., k...) -> (N, groups, positions, depth × k)
    split = windows.reshape(samples, groups, depth, *out, *kernel)
    order = (0, 1, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    factors = weight.reshape(groups, filters, -1).transpose(0, 2, 1)
    sums = np.empty((samples, groups, int(np.prod(out)), filters))
    for at in range(samples):
        columns = split[at : at + 1].transpose(order).reshape(groups, sums.shape[2], factors.shape[1])
        sums[at] = columns @ factors
    result = sums.transpose(0, 1, 3, 2).reshape(samples, groups * filters, *out)
    scales = np.broadcast_to(_flat(x.scale) * _flat(w.scale), (groups * filters,))
    result = result * scales.reshape(-1, *[1] * rank)
    bias = operands[2] if len(operands) > 2 else None
    if bias is not None:
        result = result + _real(bias).reshape(-1, *[1] * rank)
    return np.asarray(result, np.float64)


def _pads(said: Mapping[str, Any], extents: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[Any]:
    auto = said.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = list(said.get("pads", [0] * 2 * len(extents))) if auto == "NOTSET" else [0] * 2 * len(extents)
        return list(zip(pads[: len(extents)], pads[len(extents) :], strict=True))
    found = []
    for extent, r, stride in zip(extents, reach, strides, strict=True):
        total = max((-(-extent // stride) - 1) * stride + r - extent, 0)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found


def _product(node: onnx.NodeProto, operands: Sequence[Quantised | Array | None]) -> FloatArray:
    """Gemm or MatMul of integers; the scales of the second factor are one, or one for each output."""
    said = _attributes(node)
    a, b = operands[0], operands[1]
    assert isinstance(a, Quantised)
    assert isinstance(b, Quantised)
    left, right = a.centred(), b.centred()
    if said.get("transA", 0):
        left = left.T
    if said.get("transB", 0):
        right = right.T
    result = (left @ right) * (_flat(a.scale) * _flat(b.scale))
    result *= said.get("alpha", 1.0)
    bias = operands[2] if len(operands) > 2 else None
    if bias is not None:
        result = result + _real(bias) * said.get("beta", 1.0)
    return np.asarray(result, np.float64)


def _reference(
    node: onnx.NodeProto, operands: Sequence[Quantised | Array | None], opset: Mapping[str, int]
) -> list[FloatArray] | None:
    """Anything else, on the numbers that the integers stand for, by onnx's reference implementation."""
    feeds = _feeds(node, operands)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", values, outputs)
    imports = [helper.make_opsetid(domain, version) for domain, version in opset.items()]
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(helper.make_model(graph, opset_imports=imports)).run(None, feeds)
    except Exception:
        return None
    return [np.asarray(result) for result in results]


def float_kernel(
    node: onnx.NodeProto, operands: Sequence[Quantised | Array | None], model: Model
) -> list[FloatArray] | None:
    """The node's outputs by onnxruntime in float32, nothing fused; None where it does not run.

    Args:
        node: the node.
        operands: as for :func:`evaluate`.
        model: the model that it is from.
    """
    feeds = _feeds(node, operands)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    try:
        return [*Session(model.piece([node], inputs, outputs), "a node", threads=1, literal=True).run(feeds).values()]
    except VerificationError:
        return None


def _feeds(node: onnx.NodeProto, operands: Sequence[Quantised | Array | None]) -> dict[str, Array]:
    """The numbers that the operands stand for, by name."""
    return {
        name: operand.real().astype(np.float32) if isinstance(operand, Quantised) else operand
        for name, operand in zip(node.input, operands, strict=True)
        if operand is not None
    }


_PRODUCTS: Mapping[str, Callable[[onnx.NodeProto, Sequence[Quantised | Array | None]], FloatArray]] = {
    "Conv": _conv,
    "Gemm": _product,
    "MatMul": _product,
}
