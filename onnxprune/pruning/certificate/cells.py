"""The parts of a model between tensors that it shares with another one, each of which can be run by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import numpy_helper

from onnxprune.pruning.certificate.execution import Values, run_steps
from onnxprune.pruning.certificate.flat import FlatModel, Step

Alive = Callable[[Step], bool]


@dataclass(frozen=True)
class Part:
    """What makes one tensor from shared ones: the steps, and the shared tensors and inputs that they read."""

    steps: frozenset[int]
    reads: frozenset[str]
    opaque: bool


class Cells:
    """A model, cut at the tensors that it shares with the reference."""

    def __init__(self, flat: FlatModel, reference: FlatModel, what: str, shared: Collection[str]) -> None:
        """``shared`` are the tensors to cut at, as far as the model makes them."""
        self.flat = flat
        self.what = what
        self.shared = frozenset(flat.producers.keys() & shared)
        self._reference = reference

    def part(self, name: str, alive: Alive | None = None) -> Part:
        """What makes a tensor; of If's branches the one that runs, or all where nobody says which."""
        steps: set[int] = set()
        reads: set[str] = set()
        todo = [name]
        seen = {name}
        while todo:
            tensor = todo.pop()
            running = [i for i in self.flat.producers[tensor] if alive is None or alive(self.flat.steps[i])]
            if not running and tensor != name:
                reads.add(tensor)
            for index in running:
                if index in steps:
                    continue
                step = self.flat.steps[index]
                steps.add(index)
                for read in step.reads:
                    if read in self.shared or read not in self.flat.producers:
                        if read not in self.flat.weights:
                            reads.add(read)
                    elif read not in seen:
                        seen.add(read)
                        todo.append(read)
        return Part(frozenset(steps), frozenset(reads), any(self.flat.steps[i].opaque for i in steps))

    def differs(self, part: Part) -> bool:
        """Whether a part does something else than the same steps of the reference."""
        return not all(self.is_in_reference(self.flat.steps[index]) for index in part.steps)

    def holds_numbers(self, name: str) -> bool:
        """Whether what makes a tensor reads constants that may be extents or positions."""
        reads = (read for index in self.part(name).steps for read in self.flat.steps[index].reads)
        return any(r in self.flat.weights and self.flat.weights[r].dtype.kind == "i" for r in reads)

    def run(self, wanted: Sequence[str], given: Mapping[str, Any], alive: Alive | None = None) -> Values:
        """The values of shared tensors, each made from the given values of the shared ones before it.

        Raises:
            VerificationError: onnxruntime refuses a part.
        """
        found: Values = {}
        together: list[str] = []
        steps: set[int] = set()
        for name in wanted:
            part = self.part(name, alive)
            if not part.steps or any(read not in given for read in part.reads):
                continue  # A branch that does not run, or that reads what another branch would have made.
            if part.opaque:
                # Bodies may use the names of steps that were opened: they run alone.
                found.update(run_steps(self.flat, part.steps, [name], given, self.what, self.shared))
            else:
                together.append(name)
                steps |= part.steps
        found.update(run_steps(self.flat, steps, together, given, self.what, self.shared))
        return found

    def is_in_reference(self, step: Step) -> bool:
        """Whether the reference has a step that does the same with tensors of the same names."""
        return self._is_weight(step) or any(
            _equal(step, self.flat, self._reference.steps[index], self._reference)
            for name in step.makes[:1]
            for index in self._reference.producers.get(name, ())
        )

    def _is_weight(self, step: Step) -> bool:
        """Whether a step is a constant that the reference holds as a weight."""
        if step.node.op_type != "Constant" or step.makes[0] not in self._reference.weights:
            return False
        weight = self._reference.weights[step.makes[0]]
        values = [numpy_helper.to_array(a.t) for a in step.node.attribute if a.name == "value"]
        return any(v.shape == weight.shape and v.tobytes() == weight.array.tobytes() for v in values)


def _equal(a: Step, flat_a: FlatModel, b: Step, flat_b: FlatModel) -> bool:
    """Whether two steps do the same with tensors of the same names."""
    one, other = a.node, b.node
    if (one.op_type, one.domain) != (other.op_type, other.domain):
        return False
    if list(one.input) != list(other.input) or list(one.output) != list(other.output):
        return False
    if len(one.attribute) != len(other.attribute):
        return False
    if any(x != y for x, y in zip(_sorted(one.attribute), _sorted(other.attribute), strict=True)):
        return False
    return all(_equal_weight(name, flat_a, flat_b) for name in a.reads)


def _sorted(attributes: Iterable[Any]) -> list[Any]:
    return sorted(attributes, key=lambda attribute: str(attribute.name))


def _equal_weight(name: str, a: FlatModel, b: FlatModel) -> bool:
    one, other = a.weights.get(name), b.weights.get(name)
    if one is None or other is None:
        return one is other or name in a.producers or name in b.producers
    if one is other:
        return True
    if (one.elem_type, one.shape) != (other.elem_type, other.shape):
        return False
    return one.array.tobytes() == other.array.tobytes()


def needed_by(cells: Collection[Cells], order: Mapping[str, int]) -> dict[str, int]:
    """Until which step of the reference a tensor is needed by parts, by the place of what they make in its order."""
    last: dict[str, int] = {}
    for candidate in cells:
        for name in candidate.shared:
            last[name] = max(last.get(name, -1), order[name])
            for read in candidate.part(name).reads:
                last[read] = max(last.get(read, -1), order[name])
    return last
