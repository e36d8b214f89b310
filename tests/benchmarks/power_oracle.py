"""Does a fault change what a model computes? Asked without masks, plans or certificates.

The pruned model runs beside itself with the fault, as written (no optimisations: what is the same is computed the
same), and every tensor is compared under several laws of inputs. Where none moves, the node that reads the faulty
constant runs alone, under strong inputs of its own: what then stays is equivalent beyond doubt.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

import onnxprune
from onnxprune.ir.session import Arrays, Session, random_inputs
from onnxprune.pruning.mutations import Mutation

MOVED = 1e-6
"""Of a tensor's spread: by less than this, rounding may have moved it."""

_TRIALS = 3


class Verdict(Enum):
    """What a fault does."""

    MOVES = "moves tensors"
    HIDDEN = "moves nothing under the inputs that were tried, but its node alone"
    EQUIVALENT = "moves nothing"


class Oracle:
    """The tensors of one pruned model, to compare faulty ones with."""

    def __init__(self, pruned: onnxprune.Model, analysis: onnxprune.Analysis) -> None:
        self._pruned = pruned
        self._binding = analysis.shapes.binding

    def verdict(self, mutation: Mutation, mutated: onnxprune.Model) -> Verdict:
        """Whether anything moves. Raises VerificationError where the faulty model does not run."""
        session = Session(_all_shown(mutated), "the faulty model", threads=1, literal=True)
        for inputs, expected in zip(self._inputs, self._expected, strict=True):
            got = session.run(inputs)
            if any(differ(expected[name], got[name]) for name in expected if name in got):
                return Verdict.MOVES
        return Verdict.HIDDEN if self._node_moves(mutation, mutated) else Verdict.EQUIVALENT

    @cached_property
    def _inputs(self) -> list[Arrays]:
        """Normal, strong normal, uniform, and smooth inputs; integers are zeros and ones."""
        laws = [random_inputs(self._pruned, self._binding, seed) for seed in range(4)]
        rng = np.random.default_rng(0)
        for name, array in laws[0].items():
            if array.dtype.kind == "f":
                laws[1][name] = (10 * laws[1][name]).astype(array.dtype)
                laws[2][name] = rng.uniform(0, 1, array.shape).astype(array.dtype)
                laws[3][name] = _smooth(array.shape, rng).astype(array.dtype)
        return laws

    @cached_property
    def _expected(self) -> list[Arrays]:
        session = Session(_all_shown(self._pruned), "the pruned model", threads=1, literal=True)
        return [session.run(inputs) for inputs in self._inputs]

    def _node_moves(self, mutation: Mutation, mutated: onnxprune.Model) -> bool:
        """Whether the nodes that read the constant compute something else under inputs fed to them."""
        pairs = [
            (before, after)
            for before, after in zip(self._pruned.graph.node, mutated.graph.node, strict=True)
            if mutation.tensor in before.input or before != after
        ]
        if not pairs:
            return True  # The constant lies in a body, which is not taken apart here.
        return any(self._alone(before, after, mutated) for before, after in pairs)

    def _alone(self, before: onnx.NodeProto, after: onnx.NodeProto, mutated: onnxprune.Model) -> bool:
        rng = np.random.default_rng(1)
        seen = {**self._inputs[0], **self._expected[0]}
        for _ in range(_TRIALS):
            fed = {}
            for name in before.input:
                if name and name not in self._pruned.weights:
                    if name not in seen:
                        return True  # Made where this oracle does not look.
                    fed[name] = _strong(seen[name], rng)
            first, second = _run_node(before, self._pruned, fed), _run_node(after, mutated, fed)
            if first is None or second is None or any(map(differ, first, second)):
                return True
        return False


def differ(a: Any, b: Any) -> bool:
    """Whether two tensors differ by more than rounding, in shape, or in where they are not finite."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return repr(a) != repr(b)
    if a.shape != b.shape:
        return True
    if a.dtype.kind not in "fiub":
        return not np.array_equal(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    if a.dtype.kind != "f":
        return not np.array_equal(x, y)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return True
    x, y = x[finite], y[finite]
    if not x.size:
        return False
    spread = float(x.std()) or float(np.abs(x).max()) or 1.0
    return bool(np.abs(x - y).max() > MOVED * spread)


def _all_shown(model: onnxprune.Model) -> onnxprune.Model:
    """The model with every tensor of its main graph among its outputs."""
    draft = model.edit()
    known = {output.name for output in draft.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                draft.graph.output.add().name = name
    return draft.finish()


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Waves along the last two dimensions, each other position with its own."""
    total = np.zeros(shape)
    for dim in range(max(0, len(shape) - 2), len(shape)):
        view = [1] * len(shape)
        view[dim] = shape[dim]
        along = np.arange(shape[dim]).reshape(view)
        outer = [extent if d < len(shape) - 2 else 1 for d, extent in enumerate(shape)]
        total = total + np.sin(along * rng.uniform(0.02, 0.3, outer) + rng.uniform(0, 6, outer))
    return total


def _strong(like: Any, rng: np.random.Generator) -> Any:
    """Values of the kind that was seen, without its dead positions: every one drawn anew, around nothing."""
    if not isinstance(like, np.ndarray) or like.dtype.kind != "f":
        return like
    size = max(1.0, float(np.abs(like[np.isfinite(like)]).max(initial=0.0)))
    return (size * rng.standard_normal(like.shape)).astype(like.dtype)


def _run_node(node: onnx.NodeProto, model: onnxprune.Model, fed: Arrays) -> list[Any] | None:
    """The outputs of one node alone; None where it does not run so."""
    graph = helper.make_graph(
        [node],
        "alone",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in fed.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        [model.weights[name].to_proto() for name in dict.fromkeys(node.input) if name in model.weights],
    )
    proto = helper.make_model(graph, opset_imports=model.skeleton.opset_import, ir_version=model.skeleton.ir_version)
    if model.skeleton.ir_version < 4:
        proto.ir_version = 4
    try:
        return list(Session(onnxprune.load(proto), "a node", threads=1, literal=True).run(fed).values())
    except (onnxprune.OnnxPruneError, AttributeError):
        return None
