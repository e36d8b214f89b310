"""``verify``: the certificate of a pruned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import ValueInfoProto

from onnxprune.analysis.analyzing import Analysis, InputShapes, analyze
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference, compare
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.session import Arrays, Session
from onnxprune.ops import Registry
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.certificate.certificate import Certificate
from onnxprune.pruning.certificate.certifier import Certifier
from onnxprune.pruning.certificate.replaced import differences
from onnxprune.pruning.certificate.resized import resized_differences
from onnxprune.pruning.certificate.stimuli import LAWS, inputs
from onnxprune.pruning.certificate.walking import DoesNotRunError
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.substituting import replaced

TOLERANCE = 3e-5
MEMORY = 1 << 30
_CHECKER_LIMIT = 2**31 - 1


def verify(
    model: ModelLike,
    pruned: ModelLike,
    plan: Plan,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    tolerance: float = TOLERANCE,
    samples: int = 1,
    seed: int = 0,
    memory: int = MEMORY,
) -> Certificate:
    """Compare a pruned model with the masked original in onnxruntime, tensor by tensor.

    Args:
        model: the original, as it was given to :func:`onnxprune.plan`.
        pruned: the result to certify.
        plan: what was removed.
        input_shapes: shapes for inputs with symbolic dimensions; those of the plan if there are none.
        registry: the known operators, if not the default ones.
        tolerance: largest allowed difference of a tensor, relative to the spread of its channel.
        samples: how many random inputs to compare; each follows another law (see ``stimuli.LAWS``).
        seed: of the random inputs.
        memory: bytes that the values of tensors may take; models that need more are run in stretches.

    Returns:
        The certificate; see :attr:`Certificate.passed` and :attr:`Certificate.unwitnessed`.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the pruned model is invalid, onnxruntime does not run one of the models, or the
            normalised model does not equal the original.
    """
    original, result = as_model(model), as_model(pruned)
    if plan.replaced:
        how: dict[str, Any] = {"registry": registry, "tolerance": tolerance, "samples": samples, "seed": seed}
        return _verify_replaced(original, result, plan, input_shapes, memory, how)
    analysis = analyze(
        original, input_shapes or plan.input_shapes, split=plan.split, registry=registry, state=plan.state
    )
    certifier = certifier_of(analysis, plan, tolerance=tolerance, memory=memory, seed=seed)
    _check_like(original, result)
    _check_interface(analysis, result)
    runs = [usual_inputs(analysis, seed + i, LAWS[i % len(LAWS)]) for i in range(samples)]
    try:
        certificate = certifier.certify(
            result,
            [*runs, *_second_steps(analysis, original, runs[0])],
            # Not every choice is valid, and the file does not say which are.
            tentative=[run | choice for run in runs for choice in _choices(analysis)],
            original=None if original is analysis.model else original,
            approximate=_touches_approximate(analysis, certifier.kept.removed, plan),
        )
    except DoesNotRunError as error:
        _check_original(analysis, original, runs[0])
        raise VerificationError(f"{error}; the original runs: please report this model") from error
    if certificate.passed:
        _check_as_used(certifier, analysis, original, result, certifier.ran[0])
    return certificate


def _verify_replaced(
    original: Model, result: Model, plan: Plan, shapes: InputShapes | None, memory: int, how: dict[str, Any]
) -> Certificate:
    """First that the regions gave way and nothing else changed, then what was removed of the model that this left."""
    analysis = analyze(
        original, shapes or plan.input_shapes, split=plan.split, state=plan.state, registry=how["registry"]
    )
    source = analysis.model
    runs = [usual_inputs(analysis, how["seed"] + i, LAWS[i % len(LAWS)]) for i in range(how["samples"])]
    base, compared = source, list[TensorDifference]()
    for one in plan.resized:
        before, base = base, replaced(base, [one])
        compared += [found for run in runs for found in resized_differences(before, base, one, run)]
    regions = [one for one in plan.replaced if one not in plan.resized]
    if regions:
        before, base = base, replaced(base, regions)
        compared += [found for run in runs for found in differences(before, base, regions, run)]
    if original is not source:
        as_given, normalised = (
            Session(model, "the original model", literal=True).run(runs[0]) for model in (original, source)
        )
        compared += [
            compare(name, name, value, normalised[name], None, how["tolerance"]) for name, value in as_given.items()
        ]
    bad = tuple(one for one in compared if not one.passed)
    proof = verify(base, result, replace(plan, replaced=()), input_shapes=shapes, memory=memory, **how)
    return replace(
        proof,
        failures=(*bad, *proof.failures),
        tensors=proof.tensors + len(compared),
        max_absolute=max([proof.max_absolute, *(one.absolute for one in compared)]),
        max_relative=max([proof.max_relative, *(one.relative for one in compared)]),
        replaced=len(plan.replaced),
    )


def certifier_of(
    analysis: Analysis, plan: Plan, *, tolerance: float = TOLERANCE, memory: int = MEMORY, seed: int = 0
) -> Certifier:
    """What compares models with the original less what a plan removes. Raises PlanError where the plan does not fit."""
    removed = removed_per_class(analysis, plan)
    return Certifier(analysis, removed, exact_norm=plan.exact_norm, tolerance=tolerance, memory=memory, seed=seed)


def usual_inputs(analysis: Analysis, seed: int = 0, law: str = LAWS[0]) -> Arrays:
    """Values for the inputs of a model, of the shapes that it was analysed for."""
    return inputs(analysis.model, analysis.shapes.binding, seed, law)


def check(model: Model, what: str) -> None:
    """Run onnx.checker on a model. Raises VerificationError where it finds fault."""
    if model.file_size >= _CHECKER_LIMIT:
        return  # The checker reads one message of at most 2 GB; onnxruntime still has to load the model.
    try:
        onnx.checker.check_model(model.to_proto())
    except onnx.checker.ValidationError as error:
        raise VerificationError(f"onnx.checker rejects {what}: {str(error).strip().splitlines()[0]}") from error


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


def _check_interface(analysis: Analysis, result: Model) -> None:
    """Inputs and outputs have the names and types of the original's."""
    for kind, before, after in (
        ("inputs", _interface(analysis.model, analysis.model.graph.input), _interface(result, result.graph.input)),
        ("outputs", _interface(analysis.model, analysis.model.graph.output), _interface(result, result.graph.output)),
    ):
        if before != after:
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            raise VerificationError(
                f"the {kind} of the pruned model are not those of the original: {', '.join(changed[:4])}"
            )


def _interface(model: Model, values: Sequence[ValueInfoProto]) -> dict[str, int]:
    return {v.name: v.type.tensor_type.elem_type for v in values if v.name not in model.weights}


def _check_original(analysis: Analysis, original: Model, run: Arrays) -> None:
    """See that the original runs. Raises VerificationError, which names what was tried, where it does not."""
    try:
        Session(original, "the original model", literal=True).run(run)
    except VerificationError as error:
        raise VerificationError(f"{error}; {analysis.shapes.bound.tried_in_words()}") from error


def _check_as_used(certifier: Certifier, analysis: Analysis, original: Model, result: Model, run: Arrays) -> None:
    """Load and run the pruned model as its users do, with onnxruntime's optimisations; with state, two steps."""
    try:
        session = Session(result, "the pruned model")
    except VerificationError:
        Session(original, "the original model")
        raise
    run = {name: certifier.kept.cut(name, value) for name, value in run.items()}
    outputs = session.run(run)
    if analysis.state:
        session.run({**run, **{pair.input: outputs[pair.output] for pair in analysis.state}})


def _second_steps(analysis: Analysis, original: Model, run: Arrays) -> list[Arrays]:
    """The inputs of the step after a run, where outputs are fed to inputs again."""
    if not analysis.state:
        return []
    outputs = Session(original, "the original model", literal=True).run(run)
    return [{**run, **{pair.input: outputs[pair.output] for pair in analysis.state}}]


def _choices(analysis: Analysis) -> list[Arrays]:
    """Inputs that are compared with a constant (a sampling rate, say), with that constant for a value."""
    found: list[Arrays] = []
    weights = analysis.graph.model.weights
    for node in analysis.graph.nodes:
        if node.op_type != "Equal":
            continue
        for name, constant in (node.inputs, node.inputs[::-1]):
            weight, origin = weights.get(constant), _origin(analysis, name)
            shape = analysis.shapes.binding.get(origin)
            if shape is not None and weight is not None and weight.size == 1:
                elem_type = analysis.shapes.elem_types[origin]
                dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
                found.append({origin: np.full(shape, weight.array.item(), dtype)})
    return found


def _origin(analysis: Analysis, name: str) -> str:
    """What a tensor is taken from, one operand after the other, as long as the rest is constant."""
    graph = analysis.graph
    while name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        if not node.inputs or any(other and other not in graph.model.weights for other in node.inputs[1:]):
            break
        name = node.inputs[0]
    return name


def _touches_approximate(analysis: Analysis, per_class: Sequence[IntArray], plan: Plan) -> bool:
    return any(
        not group.is_exact(exact_norm=plan.exact_norm) and any(len(per_class[c]) for c in group.classes.tolist())
        for group in analysis.coupling.groups
    )
