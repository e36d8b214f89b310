"""Trained values into the ONNX graph that the module was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from onnx import NodeProto
from torch import nn

from onnxprune.errors import ConversionError
from onnxprune.ir.control_flow import body_weights, open_bodies, set_body_weights
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.provenance import steps_of, with_step
from onnxprune.ir.weights import Array, Weight
from onnxprune.passes.normalize import normalize
from onnxprune.torch.code.writing import conversions
from onnxprune.torch.layouts import Held
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.tensors import to_array


def write_back(module: nn.Module | Mapping[str, torch.Tensor], model: ModelLike) -> Model:
    """The model with the parameters and BatchNormalization statistics of the module.

    Only values differ: nodes, names, metadata, inputs and outputs stay, and a value that training did not change stays
    as it is to the bit. Where a changed weight of the given model has no initialiser of its own (it is computed from
    constants, or one initialiser serves layers that are now different), the result is the normalised model.

    Args:
        module: what ``to_module`` made, or the code that ``to_code`` wrote, or the ``state_dict`` of either, trained
            or not, on any device, in any floating-point type.
        model: what it was made of, or another model with the same weights.

    Raises:
        ConversionError: the module was not made by ``to_module`` or ``to_code``, or of another model.
        ModelError: the model cannot be read.
    """
    given = as_model(model)
    normal = normalize(given)
    if isinstance(module, nn.Module):
        module = _unwrapped(module)
    state = module.state_dict() if isinstance(module, nn.Module) else module
    names = getattr(module, "onnx_names", None)
    changed = _changed(names if isinstance(names, Mapping) else _names(state, normal), state, open_bodies(normal))
    if not changed:
        return given
    result = _with(given if _holds(given, normal, changed) else normal, changed)
    # A file that tells what happened to it goes on telling; others stay as they are but for values.
    return with_step(result, "write_back", {"changed": sorted(changed)}) if steps_of(given) else result


def _with(model: Model, arrays: Mapping[str, Array]) -> Model:
    """The model with other values of these weights, of the main graph or of bodies."""
    draft = model.edit()
    outer = {name: array for name, array in arrays.items() if name in model.weights}
    draft.weights.update({name: model.weights[name].with_array(array) for name, array in outer.items()})
    if len(outer) < len(arrays):
        places = body_weights(model)
        set_body_weights(draft, {places[name]: array for name, array in arrays.items() if name not in outer})
    return draft.finish()


def _unwrapped(module: nn.Module) -> nn.Module:
    """The one module of ``to_module`` inside what torch.compile, DistributedDataParallel or Keras put around it."""
    found = {id(part): part for part in _parts(module) if isinstance(part, OnnxModule)}
    return next(iter(found.values())) if len(found) == 1 else module


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """All modules below one; Keras keeps its layers where PyTorch does not see them."""
    for part in module.modules():
        yield part
        layers = getattr(part, "layers", None)
        for layer in layers if isinstance(layers, list) else ():
            yield from _parts(layer)


def _names(state: Mapping[str, torch.Tensor], model: Model) -> Mapping[str, Held]:
    """Where the initialisers are in what does not say it: as ``to_module`` or ``to_code`` calls them.

    Raises:
        ConversionError: it is neither of this model.
    """
    module, code = conversions(model)
    for names, keys in (module, code):
        if keys == state.keys():
            return names
    away = sorted(code[1] ^ state.keys())
    raise ConversionError(
        f"this does not hold the weights of the model under the names of to_module or to_code ('{away[0]}' is only in "
        "one of them); pass what to_module returned or to_code wrote, or its state_dict, and the model that it "
        "was made of"
    )


def _changed(names: Mapping[str, Held], state: Mapping[str, torch.Tensor], model: Model) -> dict[str, Array]:
    """The weights whose values in the module are not those of the model."""
    changed: dict[str, Array] = {}
    for name, held in names.items():
        weight = model.weights.get(name)
        if weight is None:
            raise ConversionError(f"the model has no weight '{name}'; pass the model that the module was made of")
        missing = [key for key in held.keys if key not in state]
        if missing:
            raise ConversionError(f"the module has lost '{missing[0]}', which holds weight '{name}'; keep its names")
        array = _typed(held.layout.to_onnx([to_array(state[key]) for key in held.keys]), weight)
        if array.shape != weight.shape:
            raise ConversionError(
                f"weight '{name}' has shape {weight.shape} in the model and {array.shape} in the module; "
                "pass the model that the module was made of"
            )
        if array.tobytes() != np.ascontiguousarray(weight.array).tobytes():
            changed[name] = array
    return changed


def _typed(array: Array, weight: Weight) -> Array:
    return np.ascontiguousarray(array).reshape(array.shape).astype(weight.dtype, copy=False)


def _holds(given: Model, normal: Model, names: Mapping[str, Array]) -> bool:
    """Whether these weights are initialisers of the given model too, with the same users."""
    if given is normal:
        return True
    given, normal = open_bodies(given), open_bodies(normal)
    theirs, ours = _users(given), _users(normal)
    return all(
        name in given.weights
        and given.weights[name].shape == normal.weights[name].shape
        and theirs.get(name) == ours.get(name)
        for name in names
    )


def _users(model: Model) -> dict[str, set[str]]:
    """For each tensor, the outputs of the nodes that read it; Identity is looked through."""
    source: dict[str, str] = {}
    users: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in (source.keys() | model.weights.keys()):
            source[node.output[0]] = source.get(node.input[0], node.input[0])
            continue
        for name in node.input:
            users.setdefault(source.get(name, name), set()).add(_identity(node))
    return users


def _identity(node: NodeProto) -> str:
    return next((name for name in node.output if name), node.name)
