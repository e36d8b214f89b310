"""Checks of a pruned file that use nothing but the plan's list of removed positions, onnx and numpy.

Anybody could write them from the documentation of ``Plan.removed`` and ``normalize``; neither the code that
shrinks nor the certificate has a part in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

Removed = Mapping[str, Mapping[int, Sequence[int]]]
Array = NDArray[np.float32]
Arrays = Mapping[str, Array]


def weights_that_differ(normal: onnx.ModelProto, removed: Removed, pruned: onnx.ModelProto) -> list[str]:
    """Names of weights of the pruned file that are not those of the normalised one without the removed positions.

    Integers that nothing is removed from are extents of shapes and the like; they may change, and new ones come.
    """
    before = {tensor.name: tensor for tensor in normal.graph.initializer}
    readers = {node.input[1]: node for node in normal.graph.node if node.op_type == "Conv"}
    differing = []
    for tensor in pruned.graph.initializer:
        found, axes = numpy_helper.to_array(tensor), removed.get(tensor.name, {})
        if not axes and found.dtype.kind in "iub":
            continue
        if tensor.name not in before:
            differing.append(tensor.name)
            continue
        expected = _grouped_inputs_removed(
            numpy_helper.to_array(before[tensor.name]), readers.get(tensor.name), removed
        )
        for axis, positions in axes.items():
            expected = np.delete(expected, list(positions), axis)
        if found.dtype != expected.dtype or not np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
            differing.append(tensor.name)
    return differing


def _grouped_inputs_removed(weight: Array, node: onnx.NodeProto | None, removed: Removed) -> Array:
    """The weight of a grouped Conv whose groups lose different inputs (which the plan lists with the Conv's input)."""
    blocks = _blocks(weight, node, removed)
    return np.concatenate([np.delete(rows, lost, 1) for rows, lost in blocks]) if blocks else weight


def _blocks(weight: Array, node: onnx.NodeProto | None, removed: Removed) -> list[tuple[Array, list[int]]]:
    """The filters of every group of a Conv, and the inputs that they lose; none where the weight's own axis tells."""
    if node is None or 1 in removed.get(node.input[1], {}):
        return []
    group = next((item.i for item in node.attribute if item.name == "group"), 1)
    width, gone = weight.shape[1], np.array(removed.get(node.input[0], {}).get(1, ()), dtype=np.int64)
    if group == 1 or width == 1 or not len(gone):
        return []
    return [(rows, list(gone[gone // width == at] % width)) for at, rows in enumerate(np.split(weight, group))]


def masked(normal: onnx.ModelProto, removed: Removed) -> onnx.ModelProto:
    """The normalised model with all its channels, whose layers have zeros where they would read removed ones."""
    model = onnx.ModelProto()
    model.CopyFrom(normal)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, axis in _readers(model):
        name = node.input[1]
        positions = removed.get(name, {}).get(axis, ())
        if positions:
            values = numpy_helper.to_array(weights[name]).copy()
            values[(slice(None),) * axis + (list(positions),)] = 0
            weights[name].CopyFrom(numpy_helper.from_array(values, name))
        elif node.op_type == "Conv":
            values = numpy_helper.to_array(weights[name]).copy()
            for rows, lost in _blocks(values, node, removed):
                rows[:, lost] = 0
            weights[name].CopyFrom(numpy_helper.from_array(values, name))
    return model


def _readers(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Layers with a weight, and the axis of the weight that runs along the channels that the layer reads."""
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in ranks:
            continue
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Conv":
            yield node, 1
        elif node.op_type == "ConvTranspose":
            yield node, 0
        elif node.op_type == "Gemm":
            yield node, 1 if attributes.get("transB", 0) else 0
        elif node.op_type == "MatMul":
            yield node, max(ranks[node.input[1]] - 2, 0)


def costs(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """``params`` (elements), ``flops`` (multiply-accumulates) and ``memory`` (bytes) of a model, found by running it.

    The layers are the Conv, ConvTranspose, Gemm and MatMul nodes with a weight; memory is all weights and the
    layers' outputs. ``shapes`` are those of the graph inputs.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [(node, axis) for node, axis in _readers(model)]
    inputs = {info.name for info in model.graph.input}
    wanted = dict.fromkeys(name for node, _ in layers for name in (node.input[0], node.output[0]) if name not in inputs)
    extents = {name: tuple(shape) for name, shape in shapes.items()}
    results = run(model, noise(model, shapes), list(wanted))
    extents.update({name: value.shape for name, value in results.items()})
    flops = 0
    for node, axis in layers:
        kernel = weights[node.input[1]].shape
        if node.op_type == "ConvTranspose":  # every input position spreads over a kernel
            flops += prod(extents[node.input[0]]) * prod(kernel[1:])
        elif node.op_type == "Conv":
            flops += prod(extents[node.output[0]]) * prod(kernel[1:])
        else:
            flops += prod(extents[node.output[0]]) * kernel[axis]
    return {
        "params": sum(array.size for array in weights.values() if array.dtype.kind == "f"),
        "flops": flops,
        "memory": sum(array.nbytes for array in weights.values())
        + sum(results[node.output[0]].nbytes for node, _ in layers),
    }


def noise(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Normally distributed inputs of these shapes; 16000 for an integer input (speech comes at 16 kHz)."""
    generator = np.random.default_rng(seed)
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in weights:
            continue
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        if dtype.kind == "f":
            feeds[info.name] = generator.normal(size=shapes[info.name]).astype(dtype)
        else:
            feeds[info.name] = np.array(16000, dtype=dtype)
    return feeds


def run(model: onnx.ModelProto, feeds: Arrays, outputs: Sequence[str] | None = None) -> dict[str, Array]:
    """Values of these tensors (default: of the graph outputs) in onnxruntime, on one thread."""
    exposed = model
    if outputs is not None:
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        del exposed.graph.output[:]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def telling(model: onnx.ModelProto) -> list[str]:
    """The tensors to compare: graph outputs, but what goes into them where a bounded function makes them.

    Where such a function saturates, its output is rounding error: a sigmoid of onnxruntime is accurate to 1e-7
    of one, no more, however small its value.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    names = []
    for output in model.graph.output:
        maker = makers[output.name]
        names.append(maker.input[0] if maker.op_type in ("Sigmoid", "Softmax", "Tanh") else output.name)
    return names


def difference(wanted: Arrays, found: Arrays) -> float:
    """The largest difference of any output, relative to the largest magnitude of that output."""
    assert wanted.keys() == found.keys()
    worst = 0.0
    for name, expected in wanted.items():
        assert found[name].shape == expected.shape, f"'{name}': {found[name].shape} instead of {expected.shape}"
        scale = float(np.abs(expected).max(initial=0.0))
        assert np.isfinite(scale), f"'{name}' is not finite"
        gap = float(np.abs(expected - found[name]).max(initial=0.0))
        worst = max(worst, gap / scale if scale else gap)
    return worst
