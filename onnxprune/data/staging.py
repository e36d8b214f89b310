"""Running a model piece by piece on all samples, so that weights can change between the pieces.

Only tensors that later nodes read are held. One walk costs one forward pass, however often it stops; beyond
``MOST_IN_MEMORY`` bytes the held tensors live in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxprune.data.samples import Samples
from onnxprune.errors import DataError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import captured_names
from onnxprune.ir.session import Session
from onnxprune.ir.shapes import infer_shapes

MOST_IN_MEMORY = 1_200_000_000
"""Bytes of tensors that a walk holds in memory, if it is not told otherwise."""


class StagedRun:
    """One walk through the nodes of a model on all samples.

    ``literal`` runs nodes as they are written, without onnxruntime's fusions: then equal nodes give equal values.
    The weights and nodes of ``model`` may change ahead of :attr:`position` (see ``Draft``); names may not.

    Raises:
        VerificationError: onnxruntime does not run a piece.
        DataError: an activation is not finite.
    """

    def __init__(
        self, model: Model, samples: Samples, what: str, *, most: int = MOST_IN_MEMORY, literal: bool = False
    ) -> None:
        self._model = model
        self._what = what
        self._most = most
        self._literal = literal
        self._held_bytes = 0
        self._kept: set[str] = set()
        self._batches = len(samples.slices())
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.position = 0
        self._last = {name: index for index, node in enumerate(self.nodes) for name in _reads(node)}
        self._values: dict[str, list[NDArray[Any]]] = {}
        self._types: Mapping[str, int] = infer_shapes(model, _binding(model, samples)).elem_types
        for batch in samples.batches():
            for name, array in batch.items():
                self._values.setdefault(name, []).append(array)

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._values

    @property
    def model(self) -> Model:
        """What runs."""
        return self._model

    def values(self, tensor: str) -> list[NDArray[Any]]:
        """A held tensor, batch by batch."""
        return self._values[tensor]

    def drop(self, *tensors: str) -> None:
        """Let go of tensors that were wanted."""
        self._kept.difference_update(tensors)
        self._release()

    def put(self, tensor: str, values: list[NDArray[Any]]) -> None:
        """Let the rest of the walk go on from these values of a held tensor, batch by batch."""
        self._values[tensor] = values

    def advance(self, stop: int, wanted: Collection[str] = ()) -> None:
        """Run all nodes before number ``stop``; ``wanted`` tensors are held until they are dropped."""
        self._kept.update(wanted)
        if stop <= self.position:
            return
        indices = range(self.position, stop)
        self.position = stop
        made = {name for index in indices for name in self.nodes[index].output if name}
        outputs = sorted(name for name in made if self._needs(name))
        if outputs:
            self._run(self._needed(indices, outputs), outputs)
        self._release()

    def rest(self, tensor: str, values: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """The outputs [N, ...] that depend on a held tensor, with these values in its place; the walk stays here."""
        behind, ahead = {tensor}, range(self.position, len(self.nodes))
        for index in ahead:
            if behind.intersection(_reads(self.nodes[index])):
                behind.update(name for name in self.nodes[index].output if name)
        outputs = [value.name for value in self._model.graph.output if value.name in behind - {tensor}]
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in outputs}
        if any(value.name == tensor for value in self._model.graph.output):
            parts[tensor] = list(values)
        if outputs:
            needed = self._needed(ahead, outputs)
            made = {name for index in needed for name in self.nodes[index].output}
            reads = dict.fromkeys(name for index in needed for name in _reads(self.nodes[index]) if name not in made)
            inputs = [name for name in reads if name in self._values]
            used = [name for index in needed for name in _reads(self.nodes[index]) if name in self._model.weights]
            session = Session(self._piece(needed, inputs, outputs, used), f"the rest of {self._what}")
            for batch in range(self._batches):
                feeds = {name: self._values[name][batch] for name in inputs}
                for name, array in session.run({**feeds, tensor: values[batch]}).items():
                    parts[name].append(array)
        rest = {name: {np.shape(array)[1:] for array in arrays} for name, arrays in parts.items()}
        return {name: np.concatenate(a).astype(np.float64) for name, a in parts.items() if len(rest[name]) == 1}

    def ahead(
        self, tensor: str, batches: int, given: Mapping[str, NDArray[Any]] = MappingProxyType({})
    ) -> list[NDArray[Any]] | None:
        """A tensor that later nodes make, on the first batches, perhaps from other values; the walk stays here.

        None where what it is made of is no longer held.
        """
        if tensor in self._values:
            return self.values(tensor)[:batches]
        ahead = [
            index for index in range(self.position, len(self.nodes)) if not given.keys() & self.nodes[index].output
        ]
        needed = self._needed(ahead, [tensor])
        made = {name for index in needed for name in self.nodes[index].output}
        reads = dict.fromkeys(name for index in needed for name in _reads(self.nodes[index]) if name not in made)
        used = [name for name in reads if name in self._model.weights]
        inputs = [name for name in reads if name not in self._model.weights]
        if tensor not in made or not all(name in given or name in self._values for name in inputs):
            return None
        piece = self._piece(needed, inputs, [tensor], used)
        session = Session(piece, f"a piece of {self._what}", literal=self._literal)
        return [
            session.run({**{name: self._values[name][batch] for name in inputs if name in self._values}, **given})[
                tensor
            ]
            for batch in range(min(batches, self._batches))
        ]

    def _needs(self, tensor: str) -> bool:
        return tensor in self._kept or self._last.get(tensor, -1) >= self.position

    def _needed(self, indices: Sequence[int], outputs: Collection[str]) -> list[int]:
        """The nodes among these that the outputs depend on."""
        wanted = set(outputs)
        chosen: list[int] = []
        for index in reversed(indices):
            if wanted.intersection(self.nodes[index].output):
                chosen.append(index)
                wanted.update(_reads(self.nodes[index]))
        return chosen[::-1]

    def _run(self, indices: Sequence[int], outputs: Sequence[str]) -> None:
        reads = dict.fromkeys(name for index in indices for name in _reads(self.nodes[index]))
        inputs = [name for name in reads if name in self._values]
        piece = self._piece(indices, inputs, outputs, [name for name in reads if name in self._model.weights])
        session = Session(piece, f"a piece of {self._what}", literal=self._literal)
        for batch in range(self._batches):
            results = session.run({name: self._values[name][batch] for name in inputs})
            for name in outputs:
                array = np.asarray(results[name])
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DataError(
                        f"tensor '{name}' of {self._what} has NaN or infinite values on the calibration data; "
                        "see that the data is scaled as the model wants it"
                    )
                self._values.setdefault(name, []).append(self._stored(name, array))

    def _piece(
        self, indices: Sequence[int], inputs: Sequence[str], outputs: Sequence[str], used: Sequence[str]
    ) -> Model:
        return self._model.piece(
            [self.nodes[index] for index in indices],
            [self._declared(name) for name in inputs],
            [
                helper.make_tensor_value_info(name, self._types[name], None)
                if name in self._types
                else onnx.ValueInfoProto(name=name)  # onnxruntime finds types that onnx does not know.
                for name in outputs
            ],
            {name: self._model.weights[name] for name in used},
        )

    def _declared(self, name: str) -> onnx.ValueInfoProto:
        array = self._values[name][0]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)

    def _stored(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        self._held_bytes += array.nbytes
        if self._held_bytes <= self._most or array.nbytes < 1 << 16:
            return array
        # The file lives until the last array that maps it goes.
        with tempfile.TemporaryFile() as file:
            mapped = np.memmap(file, dtype=array.dtype, mode="w+", shape=array.shape)
        mapped[...] = array
        self._held_bytes -= array.nbytes
        return mapped

    def _release(self) -> None:
        gone = [name for name in self._values if not self._needs(name)]
        for name in gone:
            for array in self._values.pop(name):
                self._held_bytes -= 0 if isinstance(array, np.memmap) else array.nbytes


def _reads(node: onnx.NodeProto) -> dict[str, None]:
    return dict.fromkeys(name for name in (*node.input, *captured_names(node)) if name)


def _binding(model: Model, samples: Samples) -> dict[str, tuple[int, ...]]:
    step = min(samples.step, len(samples))
    return {name: (step, *array.shape[1:]) for name, array in samples.inputs.items()}
