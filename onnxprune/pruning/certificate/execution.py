"""Running some steps of a model on given values of the tensors that they read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from onnxprune.ir.session import Session
from onnxprune.pruning.certificate.flat import FlatModel

Array: TypeAlias = NDArray[Any]
Values: TypeAlias = dict[str, Any]
"""Tensors by name; sequences are lists of arrays."""

_MADE = "|made"


def run_steps(
    flat: FlatModel,
    steps: Iterable[int],
    wanted: Sequence[str],
    given: Mapping[str, Any],
    what: str,
    cut: Collection[str] = (),
) -> Values:
    """Run some steps of a model in onnxruntime, as they are written, and return tensors that they make.

    Args:
        flat: the model.
        steps: the indices of the steps.
        wanted: the tensors to return.
        given: the values of everything that the steps read and do not make.
        what: the model in words, for errors.
        cut: tensors that are read from ``given`` although one of the steps makes them.

    Raises:
        VerificationError: onnxruntime refuses the steps.
    """
    chosen = [flat.steps[index] for index in sorted(set(steps))]
    if not chosen or not wanted:
        return {}
    made = {name for step in chosen for name in step.makes}
    renamed = {name: f"{name}{_MADE}" for name in made.intersection(cut)}
    reads = dict.fromkeys(name for step in chosen for name in step.reads)
    weights = {name: flat.weights[name] for name in reads if name in flat.weights and name not in given}
    fed = [name for name in reads if name not in weights and (name not in made or name in renamed)]
    nodes = [_renamed(step.node, renamed) for step in chosen]
    for number, node in enumerate(nodes):
        # Branches may use a name twice, which onnxruntime refuses in one graph.
        node.name = f"{node.name}|{number}"
    piece = flat.model.piece(
        nodes,
        [_declared(name, given[name]) for name in fed],
        [ValueInfoProto(name=renamed.get(name, name)) for name in wanted],
        weights,
    )
    session = Session(piece, what, literal=True)
    found = session.run({name: given[name] for name in fed})
    return {name: found[renamed.get(name, name)] for name in wanted}


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of the node with other names for its outputs."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy


def _declared(name: str, value: Any) -> ValueInfoProto:
    if isinstance(value, list):
        elem_type = _elem_type(value[0]) if value else TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, elem_type, None)
    array = np.asarray(value)
    return helper.make_tensor_value_info(name, _elem_type(array), array.shape)


def _elem_type(array: Array) -> int:
    if array.dtype == object or array.dtype.kind in "US":
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(array.dtype)
