"""Give a model fresh weights, to train it from scratch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from onnx import NodeProto

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.protos import integer
from onnxprune.ir.weights import Array
from onnxprune.passes.base import Pass, PassResult

Values = Callable[[np.random.Generator], Array]

_SLOPE = 0.25
_EMBEDDING_DEVIATION = 0.02


class Reinitialize(Pass):
    """Give layers fresh random weights: He for convolutions, Xavier for matrix products and recurrent layers.

    Biases become zero; scales and variances of normalisations one, their means and biases zero; slopes of PRelu a
    quarter; tables that Gather reads are normal with deviation 0.02. All other weights stay as they are.
    """

    name = "reinitialize"
    claims_equality = False

    def __init__(self, seed: int = 0) -> None:
        """Args:
        seed: decides all values, each weight's also by its name, so that other layers do not matter.
        """
        self._seed = seed

    def run(self, model: Model) -> PassResult:
        """Draw the values of every initialiser that a known layer reads."""
        makers: dict[str, Values] = {}
        for node, producers in _nodes(model):
            for name, maker in _fresh(model, node, producers).items():
                makers.setdefault(name, maker)
        draft = model.edit()
        modified = False
        for name, maker in makers.items():
            weight = model.weights[name]
            if weight.dtype.kind != "f" or not weight.size:
                continue
            rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
            array = np.ascontiguousarray(np.broadcast_to(maker(rng), weight.shape).astype(weight.dtype))
            if array.tobytes() != np.ascontiguousarray(weight.array).tobytes():
                draft.weights[name] = weight.with_array(array)
                modified = True
        return PassResult(draft.finish(), modified=True) if modified else PassResult(model, modified=False)


def _nodes(model: Model) -> Iterator[tuple[NodeProto, Mapping[str, str | None]]]:
    """Each standard node, with the operators that make its operands."""
    graph = model.derived(Graph)
    made = {output: None if node.domain else node.op_type for node in graph.nodes for output in node.outputs}
    for node in graph.nodes:
        if not node.domain:
            yield node.proto, made


def _fresh(model: Model, node: NodeProto, made: Mapping[str, str | None]) -> dict[str, Values]:
    """For each initialiser that the node reads as a weight, how its values are made."""
    operands = [name if name in model.weights else None for name in node.input]
    shapes = [model.weights[name].shape if name is not None else () for name in operands]
    makers: list[Values | None] = []
    if node.op_type in ("Conv", "ConvTranspose") and len(operands) > 1:
        makers = [None, _he(node, shapes[1]), _constant(0)]
    elif node.op_type in ("Gemm", "MatMul"):
        makers = [_xavier(shapes[0]), _xavier(shapes[1]), _constant(0)]
    elif node.op_type in ("LSTM", "GRU", "RNN"):
        makers = [None, _xavier(shapes[1]), _xavier(shapes[2]), _constant(0)]
    elif node.op_type == "BatchNormalization":
        makers = [None, _constant(1), _constant(0), _constant(0), _constant(1)]
    elif node.op_type in ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization"):
        makers = [None, _constant(1), _constant(0)]
    elif node.op_type == "PRelu":
        makers = [None, _constant(_SLOPE)]
    elif node.op_type == "Gather" and shapes[0] and len(shapes[0]) == 2:
        makers = [_normal(_EMBEDDING_DEVIATION, shapes[0])]
    elif node.op_type == "Add" and any(made.get(name) in ("MatMul", "Conv", "ConvTranspose") for name in node.input):
        # A bias of its own.
        makers = [_constant(0), _constant(0)]
    pairs = zip(operands, makers, shapes, strict=False)
    return {name: maker for name, maker, shape in pairs if name is not None and maker is not None and shape}


def _fan_in(node: NodeProto, shape: tuple[int, ...]) -> int:
    """How many inputs are summed into one output."""
    if node.op_type == "Conv":
        return max(math.prod(shape[1:]), 1)
    groups = integer(node, "group", 1)
    strides = next((list(a.ints) for a in node.attribute if a.name == "strides"), [1])
    return max(math.prod((shape[0], *shape[2:])) // groups // math.prod(strides), 1)


def _he(node: NodeProto, shape: tuple[int, ...]) -> Values:
    return _normal(math.sqrt(2 / _fan_in(node, shape)), shape)


def _xavier(shape: tuple[int, ...]) -> Values | None:
    """Uniform, for the last two dimensions of a matrix."""
    if len(shape) < 2:
        return None
    limit = math.sqrt(6 / (shape[-1] + shape[-2]))
    return lambda rng: rng.uniform(-limit, limit, shape)


def _normal(deviation: float, shape: tuple[int, ...]) -> Values:
    return lambda rng: rng.normal(0.0, deviation, shape)


def _constant(value: float) -> Values:
    return lambda rng: np.asarray(value)
