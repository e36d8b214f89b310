"""Shapes of all tensors, inferred on a skeleton without weight bytes.

Symbolic dimensions are bound to numbers, so that the analysis sees plain extents. Which extents really are fixed
is found by experiment: the shapes are inferred a second time under other bindings, and what differs is dynamic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.errors import ShapeError
from onnxprune.model import Model
from onnxprune.values import Values

_SMALL_BYTES = 4096
_DEFAULT_SPATIAL = 224
_DEFAULT_LENGTH = 64
_MAX_ROUNDS = 50

Extents = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """Extents of every tensor under one binding of the symbolic input dimensions.

    ``extents`` maps tensor to shape, ``elem_types`` tensor to ONNX element type, ``dynamic`` holds the axes whose
    extent follows the input, ``binding`` the shape used for every graph input and ``assumed`` the inputs of which
    some dimension was neither fixed by the model nor given by the caller.
    """

    binding: Mapping[str, Extents]
    extents: Mapping[str, Extents]
    elem_types: Mapping[str, int]
    dynamic: frozenset[tuple[str, int]] = frozenset()
    assumed: tuple[str, ...] = ()
    values: Values | None = field(default=None, repr=False, compare=False)
    other_values: Values | None = field(default=None, repr=False, compare=False)

    def is_static(self, tensor: str, dim: int) -> bool:
        """Whether the extent of an axis is fixed by the model, whatever the input shapes."""
        return (tensor, dim) not in self.dynamic

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of a small tensor that depends on shapes and constants only; None if it depends on data."""
        return self.values.value(tensor) if self.values is not None else None

    def static_value(self, tensor: str) -> NDArray[np.generic] | None:
        """Like :meth:`value`, but only if it is the same for all input shapes."""
        value = self.value(tensor)
        if value is None or self.other_values is None:
            return value
        other = self.other_values.value(tensor)
        same = other is not None and other.shape == value.shape and bool(np.array_equal(other, value))
        return value if same else None


def infer_shapes(model: Model, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Shapes:
    """Infer the shapes of all tensors of ``model``.

    ``input_shapes`` maps graph inputs to complete shapes. Symbolic dimensions that it leaves open become 1
    (the first dimension), 224 (height, width, depth of inputs of rank 4 and 5) or 64 (all others).

    Raises ShapeError for an unknown input, a shape that contradicts the model, or a graph that does not infer.
    """
    given = {name: tuple(int(d) for d in shape) for name, shape in (input_shapes or {}).items()}
    binding, open_dims, assumed = _bind(model, given)
    extents, types, values = _infer(model, binding)
    dynamic: frozenset[tuple[str, int]] = frozenset()
    other_values: Values | None = None
    if open_dims:
        other, other_values = _second_probe(model, binding, open_dims)
        dynamic = frozenset(
            (tensor, dim)
            for tensor, shape in extents.items()
            for dim, extent in enumerate(shape)
            if tensor not in other or len(other[tensor]) != len(shape) or other[tensor][dim] != extent
        )
    return Shapes(binding, extents, types, dynamic, assumed, values, other_values)


def _bind(
    model: Model, given: Mapping[str, Extents]
) -> tuple[dict[str, Extents], dict[str, dict[int, str]], tuple[str, ...]]:
    """Shapes of the graph inputs, their open dimensions (by symbol), and the inputs that took a default."""
    inputs = {i.name: i for i in model.graph.input if i.name not in model.weights}
    unknown = sorted(set(given) - set(inputs))
    if unknown:
        raise ShapeError(f"the model has no input '{unknown[0]}'; its inputs are: {', '.join(inputs) or 'none'}")
    symbols: dict[str, int] = {}
    for name, shape in given.items():
        for dim, declared in enumerate(inputs[name].type.tensor_type.shape.dim):
            if dim < len(shape) and declared.dim_param:
                symbols[declared.dim_param] = shape[dim]
    binding: dict[str, Extents] = {}
    open_dims: dict[str, dict[int, str]] = {}
    assumed: list[str] = []
    for name, info in inputs.items():
        tensor_type = info.type.tensor_type
        if not tensor_type.HasField("shape"):
            if name in given:
                binding[name] = given[name]
                open_dims[name] = {d: f"{name}.{d}" for d in range(len(given[name]))}
            continue
        dims = tensor_type.shape.dim
        shape = given.get(name)
        if shape is not None and len(shape) != len(dims):
            raise ShapeError(f"input '{name}' has {len(dims)} dimensions, but the shape given for it has {len(shape)}")
        bound: list[int] = []
        for dim, declared in enumerate(dims):
            fixed = declared.dim_value if declared.HasField("dim_value") and declared.dim_value > 0 else None
            if fixed is not None:
                if shape is not None and shape[dim] != fixed:
                    raise ShapeError(f"input '{name}' has extent {fixed} in dimension {dim}, not {shape[dim]}")
                bound.append(fixed)
                continue
            symbol = declared.dim_param or f"{name}.{dim}"
            open_dims.setdefault(name, {})[dim] = symbol
            if shape is not None:
                symbols[symbol] = shape[dim]
            elif symbol not in symbols:
                if dim > 0:
                    assumed.append(name)
                symbols[symbol] = _default_extent(len(dims), dim)
            bound.append(symbols[symbol])
        binding[name] = tuple(bound)
    return binding, open_dims, tuple(dict.fromkeys(assumed))


def _default_extent(rank: int, dim: int) -> int:
    if dim == 0:
        return 1
    return _DEFAULT_SPATIAL if rank in (4, 5) else _DEFAULT_LENGTH


def _second_probe(
    model: Model, binding: Mapping[str, Extents], open_dims: Mapping[str, Mapping[int, str]]
) -> tuple[dict[str, Extents], Values]:
    """Infer once more with every open dimension changed; each by another amount where the graph allows it."""
    symbols = sorted({s for dims in open_dims.values() for s in dims.values()})
    first: ShapeError | None = None
    # Symbols may be tied to each other or to a stride in ways the model does not declare, so retry coarser steps.
    for spread, step in ((64, 64), (0, 64), (0, 32)):
        delta = {symbol: step + spread * index for index, symbol in enumerate(symbols)}
        probe = {
            name: tuple(
                extent + (1 if dim == 0 else delta[open_dims[name][dim]]) if dim in open_dims.get(name, {}) else extent
                for dim, extent in enumerate(shape)
            )
            for name, shape in binding.items()
        }
        try:
            extents, _, values = _infer(model, probe)
        except ShapeError as error:
            first = first or error
            continue
        return extents, values
    # Only the bound shapes work: then nothing is known to be fixed, which pins instead of guessing.
    return {}, Values(model, {})


def _infer(model: Model, binding: Mapping[str, Extents]) -> tuple[dict[str, Extents], dict[str, int], Values]:
    substitutes: dict[str, NDArray[np.generic]] = {}
    extents: dict[str, Extents] = {}
    types: dict[str, int] = {}
    values = Values(model, extents)
    for _ in range(_MAX_ROUNDS):
        extents, types = _run_inference(model, binding, substitutes)
        values = Values(model, extents)
        fresh = _computable_operands(model, extents, values, substitutes)
        if not fresh:
            break
        substitutes.update(fresh)
    return extents, types, values


def _computable_operands(
    model: Model,
    extents: Mapping[str, Extents],
    values: Values,
    known: Mapping[str, NDArray[np.generic]],
) -> dict[str, NDArray[np.generic]]:
    """Values that unblock nodes whose outputs have no shape yet (targets that inference could not follow)."""
    fresh: dict[str, NDArray[np.generic]] = {}
    for node in model.graph.node:
        if all(name in extents for name in node.output if name):
            continue
        for name in node.input:
            if name and name not in model.weights and name not in known and name in extents:
                value = values.value(name)
                if value is not None:
                    fresh[name] = value
    return fresh


def _run_inference(
    model: Model, binding: Mapping[str, Extents], substitutes: Mapping[str, NDArray[np.generic]]
) -> tuple[dict[str, Extents], dict[str, int]]:
    skeleton = onnx.ModelProto()
    skeleton.ir_version = max(model.skeleton.ir_version, 4)
    skeleton.opset_import.extend(model.skeleton.opset_import)
    skeleton.functions.extend(model.skeleton.functions)
    graph, source = skeleton.graph, model.graph
    graph.name = source.name or "graph"
    graph.sparse_initializer.extend(source.sparse_initializer)
    graph.node.extend(n for n in source.node if not n.output or not all(o in substitutes for o in n.output if o))
    for info in source.input:
        if info.name in model.weights:
            continue
        declared = graph.input.add()
        declared.CopyFrom(info)
        if info.name in binding:
            shape = declared.type.tensor_type.shape
            del shape.dim[:]
            for extent in binding[info.name]:
                shape.dim.add().dim_value = extent
    for name, weight in model.weights.items():
        if weight.nbytes <= _SMALL_BYTES and (weight.elem_type in _INTEGERS or weight.nbytes <= 64):
            graph.initializer.append(weight.to_proto())
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(name, weight.elem_type, weight.shape))
    for name, value in substitutes.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    for info in source.output:
        output = graph.output.add()
        output.name = info.name
        if info.type.HasField("tensor_type"):
            output.type.tensor_type.elem_type = info.type.tensor_type.elem_type
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception as error:
        raise ShapeError(f"shape inference failed: {str(error).strip().splitlines()[0]}") from error
    extents: dict[str, Extents] = {name: tuple(w.shape) for name, w in model.weights.items()}
    types: dict[str, int] = {name: w.elem_type for name, w in model.weights.items()}
    for name, value in substitutes.items():
        extents[name] = tuple(value.shape)
    for info in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor_type = info.type.tensor_type
        if tensor_type.elem_type:
            types.setdefault(info.name, tensor_type.elem_type)
        if info.name in extents or not tensor_type.HasField("shape"):
            continue
        dims = tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            extents[info.name] = tuple(d.dim_value for d in dims)
    return extents, types


_INTEGERS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8})
