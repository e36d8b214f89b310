"""Random weights for the `light_*` models of the onnx package.

Those models replace each weight by a ConstantOfShape node. With constant weights every channel computes the
same, so a pruned model that kept the wrong channels would still look right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.float32]
_Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


def _he_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Weights of a Conv or of a Gemm that transposes B: all but the first axis are the fan-in.

    Each filter sums to zero: else what all channels have in common (they are positive after Relu) soon
    outweighs what depends on the input.
    """
    fan_in = math.prod(shape[1:]) if shape[0] != 1 else shape[-1]
    rows = generator.normal(0.0, math.sqrt(2.0 / fan_in), (math.prod(shape) // fan_in, fan_in))
    return np.asarray((rows - rows.mean(axis=1, keepdims=True)).reshape(shape))


def _shift(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return generator.normal(0.0, 0.1, shape)


def _scale(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return generator.uniform(0.6, 1.4, shape)


_DRAWS: Mapping[tuple[str, int], _Draw] = {
    ("Conv", 1): _he_normal,
    ("Conv", 2): _shift,
    ("Gemm", 1): _he_normal,
    ("Gemm", 2): _shift,
    ("BatchNormalization", 1): _scale,
    ("BatchNormalization", 2): _shift,
    ("BatchNormalization", 3): _shift,
    ("BatchNormalization", 4): _scale,
    ("Mul", 1): _scale,
    ("Add", 1): _shift,
}
_VIEWS = ("Reshape", "Unsqueeze")


def randomise_constants(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy of `model` whose weights are initialisers drawn from `seed`, in place of ConstantOfShape nodes.

    The scale of a draw follows from the weight's use: He's for Conv and Gemm, positive for scales and
    variances. The layer before a final Softmax is scaled so that the Softmax does not saturate. Like the
    other initialisers of these old files, the new ones are listed as graph inputs.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    shapes = _promote_constants(graph)
    generator = np.random.default_rng(seed)
    uses = {name: (node, index) for node in reversed(graph.node) for index, name in enumerate(node.input)}
    weights: dict[str, Array] = {}
    for name in sorted(shapes.keys() & uses.keys()):
        draw = _DRAWS.get(_final_use(name, uses))
        if draw is not None:
            weights[name] = draw(generator, shapes[name]).astype(np.float32)
    _write(graph, weights)
    _unsaturate(result, weights, generator)
    return result


def _promote_constants(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Turn ConstantOfShape nodes into (empty) initialisers; the shapes of all float initialisers, by name."""
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        name: tuple(tensor.dims)
        for name, tensor in initialisers.items()
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims
    }
    constants = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in constants:
        graph.node.remove(node)
        graph.initializer.remove(initialisers[node.input[0]])
        shape = tuple(int(extent) for extent in numpy_helper.to_array(initialisers[node.input[0]]))
        shapes[node.output[0]] = shape
        graph.initializer.append(onnx.TensorProto(name=node.output[0]))
        graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape))
    gone = {node.input[0] for node in constants}
    for value in [value for value in graph.input if value.name in gone]:
        graph.input.remove(value)
    return shapes


def _final_use(name: str, uses: Mapping[str, tuple[onnx.NodeProto, int]]) -> tuple[str, int]:
    """Operator and input position at which a weight takes effect, seen through Reshape and Unsqueeze."""
    node, index = uses[name]
    while node.op_type in _VIEWS:
        node, index = uses[node.output[0]]
    return node.op_type, index


def _write(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> None:
    for tensor in graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))


def _unsaturate(model: onnx.ModelProto, weights: Mapping[str, Array], generator: np.random.Generator) -> None:
    """Scale the layer before a final Softmax so that its logits have a spread of about one."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    last = producers[graph.output[0].name]
    if last.op_type != "Softmax":
        return
    logits = last.input[0]
    layer = producers[logits]
    while layer.op_type not in ("Conv", "Gemm"):  # Relu, pooling, Reshape: they pass a positive factor on
        layer = producers[layer.input[0]]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.ValueInfoProto(name=logits))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    noise = generator.normal(0.0, 1.0, image.shape).astype(np.float32)
    (value,) = session.run([logits], {image.name: noise})
    factor = np.float32(1.0 / max(float(np.std(value)), 1e-6))
    affected = [name for name in layer.input[1:] if name in weights] or [producers[layer.input[1]].input[0]]
    _write(graph, {name: weights[name] * factor for name in affected})
