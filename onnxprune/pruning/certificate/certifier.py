"""Comparing a pruned model with the masked original, tensor by tensor.

Every tensor that both have is a cut. The original runs once and gives a value to each of them. From those values,
the masked original and the pruned model (which gets the kept positions) each make every tensor anew, a node or a few
at a time; what the pruned model makes must be what the masked original makes, at the kept positions. If each part
of a model does what it should, so does the whole: a fault cannot drown in what comes after it, and a rounding error
cannot grow, nor turn a comparison over, because all parts start from the same values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference, compare
from onnxprune.ir.control_flow import close_bodies
from onnxprune.ir.model import Model
from onnxprune.ir.session import Arrays
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.certificate.cells import Alive, Cells, needed_by
from onnxprune.pruning.certificate.certificate import Certificate, Unwitnessed
from onnxprune.pruning.certificate.execution import Values
from onnxprune.pruning.certificate.flat import Step, flatten
from onnxprune.pruning.certificate.kept import Kept
from onnxprune.pruning.certificate.stimuli import blank, fed_directly
from onnxprune.pruning.certificate.thresholds import Thresholds
from onnxprune.pruning.certificate.walking import DoesNotRunError, Walk
from onnxprune.pruning.certificate.witnesses import Witnesses
from onnxprune.pruning.masking import masked

_PERTURBATIONS = 3
_STRETCH = 8
_MARGIN = 32
"""How many times as far as its inputs' last places a result may be moved by rounding inside."""

_LONG = 2
"""The same for a long sum, times the root of its terms: partial sums are rounded as often as there are terms."""


class Life(IntEnum):
    """What the values of a tensor can say: nothing (empty, or no numbers), little (all the same), or something."""

    NONE = 0
    CONSTANT = 1
    ALIVE = 2


@dataclass
class Findings:
    """What comparing has found so far."""

    differences: dict[str, TensorDifference]
    compared: dict[str, Life]
    """Tensors that were compared, and how much their values said at best."""

    def life(self, names: Iterable[str]) -> Life:
        """How much the values of some tensors said at best."""
        return max((self.compared.get(name, Life.NONE) for name in names), default=Life.NONE)

    def add(self, difference: TensorDifference, life: Life) -> None:
        """Remember the worst difference of every tensor."""
        known = self.differences.get(difference.name)
        if known is None or (known.passed, -known.relative) > (difference.passed, -difference.relative):
            self.differences[difference.name] = difference
        self.compared[difference.name] = max(life, self.compared.get(difference.name, Life.NONE))


class Certifier:
    """Compares models with one masked original. Raises VerificationError where onnxruntime refuses one of them."""

    def __init__(
        self,
        analysis: Analysis,
        removed: Sequence[IntArray],
        *,
        exact_norm: bool,
        tolerance: float,
        memory: int,
        seed: int = 0,
    ) -> None:
        self._analysis = analysis
        self._tolerance = tolerance
        self._memory = memory
        self._seed = seed
        self.kept = Kept(analysis, removed)
        self.ran: tuple[Arrays, ...] = ()
        """The inputs that the last comparison ran on."""
        self._mends_weights = exact_norm
        self._normal = flatten(close_bodies(analysis.graph.model))
        blind = flatten(masked(analysis, removed, exact_norm=exact_norm))
        self._shared = (
            frozenset(name for name in self._normal.producers if self._comparable(name)) & blind.producers.keys()
        )
        self._masked = Cells(blind, self._normal, "the masked original", self._shared)
        self._order = {
            name: index
            for index, step in enumerate(self._masked.flat.steps)
            for name in step.makes
            if name in self._normal.producers
        }

    def certify(
        self,
        result: Model,
        runs: Iterable[Arrays],
        *,
        tentative: Iterable[Arrays] = (),
        original: Model | None = None,
        approximate: bool = False,
    ) -> Certificate:
        """Compare a pruned model on some inputs.

        Args:
            result: the pruned model.
            runs: inputs by name.
            tentative: more of them, which the model need not be able to run.
            original: the model before normalisation, to compare that, too.
            approximate: what the certificate is to say of that.
        """
        cells = self.cells(result)
        before: tuple[Cells, ...] = ()
        if original is not None:
            unrolled = flatten(original)
            # Normalising unrolls loops; what was made in each of their turns bears the name of one of them.
            shared = self._shared - unrolled.iterated
            before = (Cells(unrolled, self._normal, "the original model", shared),)
        findings = Findings({}, {})
        witnesses = Witnesses(self._losing(), self._tolerance, self._seed)
        thresholds = Thresholds(self._analysis.graph, self._analysis.registry, self.kept, self._tolerance)
        done: list[Arrays] = []
        refusal: DoesNotRunError | None = None
        for inputs in (*runs, *tentative):
            try:
                for made, walk in self._walk(inputs, (cells, *before)):
                    self.compare_made(cells, made, walk.values, walk.alive, findings, witnesses)
                    thresholds.observe(made, _Cut(walk.values, self.kept))
                    for unnormalised in before:
                        self._check_normalisation(unnormalised, made, walk)
            except DoesNotRunError as error:
                refusal = refusal or error
                continue
            before = ()
            done.append(inputs)
        if refusal is not None and not done:
            raise refusal
        self.ran = tuple(done)
        self._feed_directly(cells, done[0], findings, witnesses)
        self._feed_other_extents(cells, findings, witnesses)
        self._forgive_equal(witnesses)
        found = sorted(findings.differences.values(), key=lambda d: self._order[d.name])
        finite = [d for d in found if np.isfinite(d.relative)]
        return Certificate(
            outputs=tuple(d for name in self._normal.outputs for d in found if d.name == name),
            failures=tuple(d for d in found if not d.passed),
            tensors=len(found),
            max_absolute=max((d.absolute for d in finite), default=0.0),
            max_relative=max((d.relative for d in finite), default=0.0),
            tolerance=self._tolerance,
            samples=len(done),
            approximate=approximate,
            unwitnessed=self._unwitnessed(cells, findings, witnesses),
            changed=() if self._mends_weights else self.changed_weights(cells),
            decisions=thresholds.decisions,
            near=thresholds.near,
        )

    def cells(self, result: Model) -> Cells:
        """A pruned model, cut at the tensors that it shares with the original."""
        return Cells(flatten(result), self._normal, "the pruned model", self._shared)

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Shared tensors in the order in which the masked original makes them."""
        return sorted((name for name in names if name in self._order), key=self._order.__getitem__)

    def values(self, cells: Cells, inputs: Arrays) -> tuple[Values, Alive]:
        """What the masked original makes of inputs: every tensor that a pruned model is compared by or made from.

        Raises:
            VerificationError: onnxruntime refuses the masked original.
        """
        last = dict.fromkeys(needed_by([cells], self._order), len(self._masked.flat.steps))
        walk = Walk(self._masked.flat, inputs, self._sizes, last, self._memory, self._masked.what)
        for _ in walk.stretches():
            pass
        return walk.values, walk.alive

    def _check_normalisation(self, original: Cells, made: Iterable[str], walk: Walk) -> None:
        """See that normalising has kept what every tensor is made by. Raises VerificationError where it has not."""
        changed = [n for n in made if n in original.shared and original.differs(original.part(n, walk.alive))]
        found = original.run(changed, walk.values, walk.alive)
        normal = Cells(self._normal, self._normal, "the normalised model", original.shared)
        expected = normal.run(list(found), walk.values, walk.alive)
        for name, value in found.items():
            if name not in expected or not isinstance(value, np.ndarray) or not self._is_determined(name):
                continue
            difference = self._compare(name, expected[name], value, None)
            pair = expected[name], value
            if not difference.passed and not self._is_rounding(difference, original, walk.values, pair, walk.alive):
                gap = f"by {difference.relative:.2e} of its spread"
                raise VerificationError(
                    f"normalising changed tensor '{name}' ({difference.node}) {difference.reason or gap}; "
                    "please report this model"
                )

    def changed_weights(self, cells: Cells) -> tuple[str, ...]:
        """Floating-point weights of the pruned model that are not the original's at the kept positions."""
        relative = {self._analysis.untied.axes.axis(axis).tensor for axis in self._analysis.untied.relative}
        found = []
        for name, weight in cells.flat.weights.items():
            known = self._normal.weights.get(name)
            if known is None or name in relative or weight is known or weight.dtype.kind != "f":
                continue
            wanted = self.kept.cut(name, known.array)
            if wanted.shape != weight.shape or wanted.tobytes() != weight.array.tobytes():
                found.append(name)
        return tuple(found)

    def _unwitnessed(self, cells: Cells, findings: Findings, witnesses: Witnesses) -> tuple[Unwitnessed, ...]:
        """What none of the comparisons could have noticed."""
        found = [self._untold(owner, witnesses.clusters(owner), findings) for owner in sorted(witnesses.open)]
        for step in self._demanded(cells):
            names = [name for name in step.makes if name in cells.shared]
            if findings.life(names) is Life.NONE:
                seen = any(name in findings.compared for name in names)
                why = "its output is empty or no number on every input tried" if seen else "no input tried runs it"
                found.append(Unwitnessed(f"{step.node.op_type} '{step.label}'", why))
        return tuple(found)

    def _walk(self, inputs: Arrays, cells: Sequence[Cells]) -> Iterator[tuple[list[str], Walk]]:
        last_use = needed_by(cells, self._order)
        walk = Walk(self._masked.flat, inputs, self._sizes, last_use, self._memory, self._masked.what)
        for made in walk.stretches():
            yield made, walk

    def compare_made(
        self,
        cells: Cells,
        made: Iterable[str],
        values: Mapping[str, Any],
        alive: Alive | None,
        findings: Findings,
        witnesses: Witnesses,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        """Compare some tensors.

        ``values`` holds what they are made from, and ``expected`` what the masked original makes of it (which are
        the values of a run, unless given).
        """
        wanted = [name for name in made if name in cells.shared and self._is_determined(name)]
        given = _Cut(values, self.kept)
        if expected is not None:
            found = cells.run(wanted, given, alive)
        else:
            found, faults = _run_what_runs(cells, wanted, given, alive)
            for name, fault in faults.items():
                gap = float("inf")
                failed = TensorDifference(name, self._node(name), gap, gap, passed=False, reason=f"fails: {fault}")
                findings.add(failed, Life.NONE)
        for name in found:
            if not isinstance(found[name], np.ndarray):
                continue
            reference = given[name] if expected is None else self.kept.cut(name, expected[name])
            difference = self._compare(name, reference, found[name], self.kept.channel(name))
            if not difference.passed and self._is_rounding(difference, cells, given, (reference, found[name]), alive):
                difference = replace(difference, passed=True, positions=())
            findings.add(difference, _life(reference))
            for dim, owner in self.kept.classes(name).items():
                if owner in witnesses.open:
                    witnesses.observe(owner, reference, dim)

    def _compare(self, name: str, wanted: Any, found: Any, dim: int | None) -> TensorDifference:
        return compare(name, self._node(name), wanted, found, dim, self._tolerance)

    def _node(self, name: str) -> str:
        return self._normal.steps[self._normal.producers[name][0]].label

    def _is_rounding(
        self,
        difference: TensorDifference,
        cells: Cells,
        given: Mapping[str, Any],
        pair: tuple[Any, Any],
        alive: Alive | None,
    ) -> bool:
        """Whether a difference is what rounding makes: moving all inputs by a last place moves the result as far.

        That tells sums whose terms cancel, and steps that several roundings lead to, from wrong ones.
        """
        name = difference.name
        if not np.isfinite(difference.absolute):
            return False
        rng = np.random.default_rng(self._seed)
        wanted, found = (np.asarray(value).astype(np.float64) for value in pair)
        moved = np.zeros(wanted.shape)
        for _ in range(_PERTURBATIONS):
            nearby = {read: _moved(given[read], rng) for read in cells.part(name, alive).reads}
            after = cells.run([name], nearby, alive)[name].astype(np.float64)
            with np.errstate(invalid="ignore"):
                moved = np.fmax(moved, np.abs(after - found))
        with np.errstate(invalid="ignore"):
            gap = np.nan_to_num(np.abs(wanted - found))
        if pair[0].dtype.kind in "iub":
            return bool((gap <= moved).all())
        dim = self.kept.channel(name)
        others = None if dim is None else tuple(d for d in range(gap.ndim) if d != dim)
        long = _LONG * self._terms.get(name, 0.0) ** 0.5
        allowed = max(_MARGIN, long) * moved + long * np.spacing(np.abs(pair[1]))
        return bool((gap.max(axis=others) <= allowed.max(axis=others)).all())

    @cached_property
    def _terms(self) -> Mapping[str, float]:
        """How many products are summed up for an element of what a layer makes."""
        costs, graph = self._analysis.costs, self._analysis.graph
        work = costs.per_layer("flops", costs.full)
        made = [(graph.nodes[layer.node].outputs[0], float(work[layer.index])) for layer in costs.layers]
        return {name: macs / max(math.prod(graph.shapes.extents[name]), 1) for name, macs in made}

    def _feed_directly(self, cells: Cells, inputs: Arrays, findings: Findings, witnesses: Witnesses) -> None:
        """Where the inputs have not told positions apart, or not reached a step, give its operands other values."""
        for positive, stretch in ((False, 1), (True, 1), (False, _STRETCH)):
            wanted = self._wanting(cells, findings, witnesses)
            if not wanted:
                return
            values = self._values_of(self._reads(cells, wanted), inputs, stretch)
            self.compare_fed(cells, wanted, values, findings, witnesses, positive=positive)

    def _feed_other_extents(self, cells: Cells, findings: Findings, witnesses: Witnesses) -> None:
        """Where extents are computed or written down, they have to be right for other shapes of the inputs, too."""
        demanded = {name for step in self._demanded(cells) for name in step.makes}
        wanted = [n for n in cells.shared if len(cells.part(n).steps) > 1 or (n in demanded and cells.holds_numbers(n))]
        self.compare_elsewhere(cells, wanted, findings, witnesses)

    def compare_elsewhere(self, cells: Cells, names: Iterable[str], findings: Findings, witnesses: Witnesses) -> None:
        """Compare tensors under other extents of open dimensions, made from values that are fed directly."""
        other = self._analysis.shapes.other_extents
        single = (n for n in names if len(cells.flat.producers[n]) == 1 and n in self._masked.shared)
        wanted = self.in_order(single) if other else []
        if wanted:
            values = self._blanks(self._reads(cells, wanted), other)
            self.compare_fed(cells, wanted, values, findings, witnesses, positive=False)

    def _reads(self, cells: Cells, wanted: Iterable[str]) -> set[str]:
        return {read for name in wanted for c in (cells, self._masked) for read in c.part(name).reads}

    def compare_fed(
        self,
        cells: Cells,
        wanted: list[str],
        values: Values,
        findings: Findings,
        witnesses: Witnesses,
        *,
        positive: bool,
    ) -> None:
        """Let both models make tensors from values at random in place of these, and compare them."""
        rng = np.random.default_rng(self._seed)
        fed = {name: fed_directly(values[name], rng, positive=positive) for name in sorted(values)}
        groups = [wanted]
        while groups:
            names = [n for n in groups.pop() if self._reads(cells, [n]) <= fed.keys()]
            try:
                expected = self._masked.run(names, fed)
                self.compare_made(cells, names, fed, None, findings, witnesses, expected)
                self._observe_read(cells, names, fed, findings, witnesses)
            except VerificationError:
                # Not every step takes any values; those that do are looked at by themselves.
                half = len(names) // 2
                groups += [names[:half], names[half:]] if half else []

    def _observe_read(
        self, cells: Cells, names: Iterable[str], fed: Mapping[str, Any], findings: Findings, witnesses: Witnesses
    ) -> None:
        """Positions that were fed different values are told apart by what was made of them."""
        reads = {read for name in names if findings.life([name]) is Life.ALIVE for read in cells.part(name).reads}
        for read in sorted(reads):
            for dim, owner in self.kept.classes(read).items():
                if owner in witnesses.open:
                    witnesses.observe(owner, self.kept.cut(read, fed[read]), dim)

    def _wanting(self, cells: Cells, findings: Findings, witnesses: Witnesses) -> list[str]:
        """The tensors to make from values that are fed directly, in order."""
        names = {name for step in self._demanded(cells) for name in step.makes if name in cells.shared}
        names = {name for name in names if findings.life([name]) < Life.ALIVE}
        if witnesses.open:
            near = {name for name in cells.shared if witnesses.open.intersection(self.kept.classes(name).values())}
            names |= near | {name for name in cells.shared if not near.isdisjoint(cells.part(name).reads)}
        known = cells.shared & self._masked.shared
        single = (n for n in names & known if len(cells.flat.producers[n]) == 1)
        return self.in_order(single)

    def _values_of(self, names: Iterable[str], inputs: Arrays, stretch: int) -> Values:
        """Values of some tensors, from a run of the reference; zeros for what it does not make.

        Those have the shape that analysis knows, or are longer by ``stretch`` where nothing ties the extent: what
        the branch that runs can do with its inputs may be too short for the other one.
        """
        last = dict.fromkeys(names, len(self._masked.flat.steps))
        walk = Walk(self._masked.flat, inputs, self._sizes, last, self._memory, self._masked.what)
        for _ in walk.stretches():
            pass
        found = {name: walk.values[name] for name in last if name in walk.values}
        return found | self._blanks(last.keys() - found.keys(), self._analysis.shapes.extents, stretch)

    def _blanks(self, names: Iterable[str], extents: Mapping[str, tuple[int, ...]], stretch: int = 1) -> Values:
        types = self._analysis.shapes.elem_types
        found: Values = {}
        for name in names:
            if name in extents and name in types:
                tied = self.kept.classes(name)
                shape = (n if d < 2 or d in tied else n * stretch for d, n in enumerate(extents[name]))
                found[name] = blank(types[name], tuple(shape))
        return found

    def _demanded(self, cells: Cells) -> list[Step]:
        """The steps of a pruned model that are not those of the original."""
        return [
            step
            for step in cells.flat.steps
            if not step.opaque and not cells.shared.isdisjoint(step.makes) and not cells.is_in_reference(step)
        ]

    def _untold(self, owner: int, clusters: Sequence[IntArray], findings: Findings) -> Unwitnessed:
        coupling = self._analysis.coupling
        axes = [coupling.axes.axis(axis) for axis in coupling.members[owner]]
        looked = [axis for axis in axes if axis.tensor in findings.compared]
        positions = ", ".join(map(str, clusters[0][:4].tolist()))
        reason = "carry equal values on every input tried" if looked else "lie on tensors that cannot be looked at"
        return Unwitnessed(f"{(looked or axes)[0]}", f"kept positions {positions} {reason}")

    def _forgive_equal(self, witnesses: Witnesses) -> None:
        """Positions whose filters are equal are the same by themselves: exchanging them changes nothing."""
        coupling, weights = self._analysis.coupling, self._analysis.graph.model.weights
        producing = {producer.axis for producer in coupling.relations.producers}
        for owner in witnesses.open:
            kept = np.delete(np.arange(int(coupling.extents[owner])), self.kept.removed[owner])
            rows: list[list[bytes]] = []
            for axis in coupling.members[owner]:
                tensor, dim = coupling.axes.axis(axis)
                weight = weights.get(tensor)
                if weight is not None and (axis in producing or len(weight.shape) == 1):
                    moved = np.moveaxis(weight.array, dim, 0)
                    rows.append([np.ascontiguousarray(moved[p]).tobytes() for p in kept])
            if rows:
                keys = list(zip(*rows, strict=True))
                witnesses.forgive(owner, [_representatives(c, keys) for c in witnesses.clusters(owner)])

    def _comparable(self, name: str) -> bool:
        """Whether a tensor has to have the same value in both models, but for the positions that go.

        Shape arithmetic describes tensors that have shrunk, and need not; who uses it is compared. Where the
        analysis does not know a tensor's shape, it may have shrunk with what it is made from.
        """
        if name in self._normal.outputs:
            return True
        if name in self._normal.data_free and not self.kept.classes(name):
            return False
        if name in self._analysis.coupling.axes:
            return True
        steps = [self._normal.steps[index] for index in self._normal.producers[name]]
        return not any(self.kept.shrunk(other) for step in steps for other in (*step.reads, *step.makes))

    def _losing(self) -> dict[int, int]:
        """How many positions the classes keep that lose some.

        Those of weights alone are compared as weights, those of what is computed from extents by who uses it.
        """
        coupling = self._analysis.coupling
        given = self._normal.weights.keys() | self._normal.data_free
        return {
            c: int(coupling.extents[c]) - len(gone)
            for c, gone in enumerate(self.kept.removed)
            if len(gone) and not all(coupling.axes.tensor(a) in given for a in coupling.members[c])
        }

    def _is_determined(self, name: str) -> bool:
        """Whether a tensor follows from its operands, and not from chance."""
        return name not in self._random

    @cached_property
    def _random(self) -> frozenset[str]:
        found: set[str] = set()
        for node in self._analysis.graph.nodes:
            operator = self._analysis.registry.find(node)
            if operator is not None and node.op_type in operator.draws:
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        shapes = self._analysis.shapes
        return {name: 4 * int(np.prod(extents, dtype=np.int64)) for name, extents in shapes.extents.items()}


class _Cut(Mapping[str, Any]):
    """What is left of tensors, cut when they are asked for, and kept."""

    def __init__(self, values: Mapping[str, Any], kept: Kept) -> None:
        self._values = values
        self._kept = kept
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = self._kept.cut(name, self._values[name])
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values


def _run_what_runs(
    cells: Cells, wanted: Sequence[str], given: Mapping[str, Any], alive: Alive | None
) -> tuple[Values, dict[str, str]]:
    """What a model makes of values that its tensors have, and what onnxruntime says of what it cannot make."""
    try:
        return cells.run(wanted, given, alive), {}
    except VerificationError as error:
        if len(wanted) == 1:
            return {}, {wanted[0]: str(error)}
    half = len(wanted) // 2
    first, faults = _run_what_runs(cells, wanted[:half], given, alive)
    second, more = _run_what_runs(cells, wanted[half:], given, alive)
    return first | second, faults | more


def _representatives(cluster: IntArray, keys: Sequence[Any]) -> IntArray:
    """One position of every kind."""
    return np.array(list({keys[int(p)]: int(p) for p in cluster}.values()), dtype=np.int64)


def _life(array: Any) -> Life:
    if not isinstance(array, np.ndarray) or not array.size:
        return Life.NONE
    if array.dtype.kind not in "fiub":
        return Life.CONSTANT
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return Life.NONE
    return Life.ALIVE if low != high or array.size == 1 else Life.CONSTANT


def _moved(value: Any, rng: np.random.Generator) -> Any:
    """Floats moved by at most one unit in the last place."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    eps = np.finfo(value.dtype).eps
    return (value * (1 + eps * rng.integers(-1, 2, value.shape))).astype(value.dtype)
