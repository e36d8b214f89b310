"""The certificate: the outputs of the pruned model equal those of the masked original.

The masked original is built without the code that shrinks: it keeps all channels, but whatever contracts or reduces
over removed positions does not see them (weights zeroed there; normalisers across channels see kept ones only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxprune.analysis.analyzing import Analysis, InputShapes, ModelLike, analyze, as_model
from onnxprune.errors import VerificationError
from onnxprune.ir.control_flow import open_bodies
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import OutputDifference, difference
from onnxprune.ir.session import Arrays, Session, random_inputs
from onnxprune.ops import Registry
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.masking import masked
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-4
APPROXIMATE_TOLERANCE = 1e-3
_CHECKER_LIMIT = 2**31 - 1
_SQUASHING = frozenset({"Sigmoid", "Softmax", "Tanh", "HardSigmoid", "Softsign"})


@dataclass(frozen=True)
class Certificate:
    """The measured comparison of the pruned model with the masked original.

    ``tolerance`` bounds the relative difference; ``approximate`` tells that groups were pruned across which the
    model normalises (the reference then normalises over kept channels only).
    """

    outputs: tuple[OutputDifference, ...]
    tolerance: float
    samples: int
    approximate: bool

    @property
    def passed(self) -> bool:
        """Whether every output agrees within the tolerance."""
        return bool(self.outputs) and all(o.relative <= self.tolerance for o in self.outputs)

    @property
    def max_absolute(self) -> float:
        """The largest absolute difference of all outputs."""
        return max((o.absolute for o in self.outputs), default=0.0)

    @property
    def max_relative(self) -> float:
        """The largest difference relative to the largest magnitude of its output."""
        return max((o.relative for o in self.outputs), default=0.0)

    def __bool__(self) -> bool:
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {
            **asdict(self),
            "passed": self.passed,
            "max_absolute": self.max_absolute,
            "max_relative": self.max_relative,
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row per output. Raises UsageError where pandas is not installed."""
        from onnxprune.pruning.notebook import certificate_frame

        return certificate_frame(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from onnxprune.pruning.notebook import certificate_html

        return certificate_html(self)


def verify(
    model: ModelLike,
    pruned: ModelLike,
    plan: Plan,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    tolerance: float | None = None,
    samples: int = 1,
    seed: int = 0,
) -> Certificate:
    """Compare a pruned model with the masked original in onnxruntime.

    Args:
        model: the original, as it was given to :func:`onnxprune.plan`.
        pruned: the result to certify.
        plan: what was removed.
        input_shapes: shapes for inputs with symbolic dimensions; those of the plan if there are none.
        registry: the known operators, if not the default ones.
        tolerance: largest allowed relative difference; 1e-4, or 1e-3 where approximate groups were pruned.
        samples: how many random inputs to compare.
        seed: of the random inputs.

    Returns:
        The certificate; see :attr:`Certificate.passed`.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the pruned model is invalid, onnxruntime does not run one of the models, or the
            normalised model does not equal the original.
    """
    original, result = as_model(model), as_model(pruned)
    analysis = analyze(original, input_shapes or plan.input_shapes, split=plan.split, registry=registry)
    per_class = removed_per_class(analysis, plan)
    _check_like(original, result)
    approximate = _touches_approximate(analysis, per_class, plan)
    if tolerance is None:
        tolerance = APPROXIMATE_TOLERANCE if approximate else TOLERANCE
    squashed = _squashed(analysis, result)
    inner = tuple(dict.fromkeys(squashed.values()))
    blind, shown = _exposed(masked(analysis, per_class, exact_norm=plan.exact_norm), inner), _exposed(result, inner)

    def compare(*, literal: bool) -> Certificate:
        reference = _reference(blind, original, literal=literal)
        runs, expected = _reference_runs(analysis, reference, samples, seed)
        if literal:
            Session(result, "the pruned model").run(runs[0])  # it has to load and run as users run it, too
        session = Session(shown, "the pruned model", literal=literal)
        got = [session.run(inputs) for inputs in runs]
        if original is not analysis.model:
            _check_normalisation(original, analysis.model, runs[:1], literal=literal)
        worst = [
            difference(name, [e[name] for e in expected], [g[name] for g in got], bound=float(name in squashed))
            for name in (*(o.name for o in result.graph.output), *inner)
        ]
        return Certificate(tuple(worst), tolerance, len(runs), approximate)

    literal = _rounds(result)
    certificate = compare(literal=literal)
    if not certificate.passed and not literal:
        # Where a model amplifies rounding, onnxruntime's optimisations alone can differ by more than the tolerance
        # between two widths; as written, the operations are the same.
        certificate = compare(literal=True)
    return certificate


def _reference(reference: Model, original: Model, *, literal: bool) -> Session:
    """The masked original in onnxruntime. Where it does not load, tell whether the original does."""
    try:
        return Session(reference, "the masked original", literal=literal)
    except VerificationError:
        Session(original, "the original model", literal=literal)
        raise


def _reference_runs(
    analysis: Analysis, reference: Session, samples: int, seed: int
) -> tuple[list[Arrays], list[Arrays]]:
    """Random inputs and what the masked original makes of them.

    Symbolic dimensions take a second value, too, and inputs that choose a branch the other one.
    """
    shapes = analysis.shapes
    firm = [random_inputs(analysis.model, shapes.binding, seed + i) for i in range(samples)]
    # Not every value of a symbolic dimension or of a choice is valid, and the file does not say which are.
    tentative = [inputs | choice for inputs in firm for choice in _choices(analysis)]
    if shapes.other_binding is not None:
        tentative.append(random_inputs(analysis.model, shapes.other_binding, seed))
    runs: list[Arrays] = []
    expected: list[Arrays] = []
    failure: VerificationError | None = None
    for inputs in (*firm, *tentative):
        try:
            expected.append(reference.run(inputs))
            runs.append(inputs)
        except VerificationError as error:
            failure = failure or error
    if failure is not None and not runs:
        described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.binding.items())
        raise VerificationError(
            f"{failure}. The inputs had the shapes {described}; if the model wants others, give them as input shapes"
        ) from failure
    return runs, expected


def _choices(analysis: Analysis) -> list[Arrays]:
    """Inputs that are compared with a constant (a sampling rate, say), with that constant for a value."""
    found: list[Arrays] = []
    for node in analysis.graph.nodes:
        if node.op_type != "Equal":
            continue
        for name, constant in (node.inputs, node.inputs[::-1]):
            shape, weight = analysis.shapes.binding.get(name), analysis.graph.model.weights.get(constant)
            if shape is not None and weight is not None and weight.size == 1:
                found.append({name: np.full(shape, weight.array.item(), weight.array.dtype)})
    return found


def _squashed(analysis: Analysis, result: Model) -> dict[str, str]:
    """Graph outputs that a bounded function makes, and the tensors before it.

    Where such a function saturates, its outputs hide differences or consist of rounding errors; what goes into it
    tells more, so that is compared as well.
    """
    graph = analysis.graph
    available = {name for node in result.graph.node for name in node.output} - set(graph.outputs)
    found: dict[str, str] = {}
    for output in graph.outputs:
        node = graph.nodes[graph.producer[output]] if output in graph.producer else None
        if node is not None and node.op_type in _SQUASHING and node.inputs[0] in available:
            found[output] = node.inputs[0]
    return found


def _exposed(model: Model, tensors: Sequence[str]) -> Model:
    """The model with further graph outputs (without types: onnxruntime infers them)."""
    if not tensors:
        return model
    draft = model.edit()
    for name in tensors:
        draft.graph.output.add().name = name
    return draft.finish()


def _check_like(original: Model, result: Model) -> None:
    """Hold the result to onnx.checker, unless the original fails it already (onnxruntime is the arbiter then)."""
    try:
        check(result, "the pruned model")
    except VerificationError:
        try:
            check(original, "the original model")
        except VerificationError:
            return
        raise


def check(model: Model, what: str) -> None:
    """Run onnx.checker on a model. Raises VerificationError where it finds fault."""
    if model.file_size >= _CHECKER_LIMIT:
        return  # The checker reads one message of at most 2 GB; onnxruntime still has to load the model.
    try:
        onnx.checker.check_model(model.to_proto())
    except onnx.checker.ValidationError as error:
        raise VerificationError(f"onnx.checker rejects {what}: {str(error).strip().splitlines()[0]}") from error


def _run_all(model: Model, what: str, runs: Sequence[Arrays], *, literal: bool) -> list[Arrays]:
    session = Session(model, what, literal=literal)
    return [session.run(inputs) for inputs in runs]


def _rounds(model: Model) -> bool:
    """Whether a model computes in integers.

    onnxruntime's optimisations may round such models elsewhere, by whole quantisation steps and differently for the
    masked and the pruned one, so they are compared as they are written.
    """
    types = {node.op_type for node in open_bodies(model).graph.node}
    return any("Quantize" in name or "QLinear" in name or "Integer" in name for name in types)


def _check_normalisation(original: Model, normal: Model, runs: Sequence[Arrays], *, literal: bool) -> None:
    before = _run_all(original, "the original model", runs, literal=literal)
    after = _run_all(normal, "the normalised model", runs, literal=literal)
    for name in before[0]:
        found = difference(name, [b[name] for b in before], [a[name] for a in after])
        if not found.relative <= TOLERANCE:
            raise VerificationError(
                f"normalising changed output '{name}' by {found.relative:.2e}; please report this model"
            )


def _touches_approximate(analysis: Analysis, per_class: Sequence[IntArray], plan: Plan) -> bool:
    return any(
        not group.is_exact(exact_norm=plan.exact_norm) and any(len(per_class[c]) for c in group.classes.tolist())
        for group in analysis.coupling.groups
    )
