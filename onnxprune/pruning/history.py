"""The steps of the pipeline as a file tells them, and plans read from there."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.data.tasks.base import VERDICTS, Verdict
from onnxprune.errors import PlanError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.model import Model
from onnxprune.ir.plain import parse
from onnxprune.ir.provenance import has_weights, steps_of, with_step, with_steps, without_folders
from onnxprune.pruning.options import Given, JobOptions, options_of
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    from onnxprune.data.fidelity import Fidelity
    from onnxprune.pruning.certificate import Certificate
    from onnxprune.pruning.compensation import Compensation
    from onnxprune.pruning.promising import Kept
    from onnxprune.pruning.quantization.converting import Conversion
    from onnxprune.pruning.quantization.quantizing import Quantization

IN_PYTHON = "given in Python"
"""What is told of data that is no SPEC."""
PRUNE, COMPENSATE, QUANTIZE = "prune", "compensate", "quantize"
_MOST = 1 << 28
"""Bytes that a plan in a file may unpack to."""


def with_removal(result: Model, original: Model, plan: Plan, certificate: Certificate | None, job: JobOptions) -> Model:
    """The pruned model, which tells what was removed from which model, and what was proven of that."""
    proof = None
    if certificate is not None:
        proof = {
            "passed": certificate.passed,
            "tensors": certificate.tensors,
            "samples": certificate.samples,
            "tolerance": certificate.tolerance,
            "unwitnessed": len(certificate.unwitnessed),
        }
    told = {"original": model_digest(original), "settings": dict(plan.settings), "plan": packed(plan)}
    given = job.given()
    told["job"] = {
        name: _data(job) if name == "calibration" else given[name]
        for name, option in options_of(JobOptions).items()
        if name in given and option.kind != "object"
    }
    return with_step(result, PRUNE, {**told, "certificate": proof})


def with_repair(result: Model, before: Model, done: Compensation, job: JobOptions) -> Model:
    """The compensated model, which tells how, with what data, and which weights changed."""
    told = {
        "method": done.method,
        "data": None if job.calibration is None else _data(job),
        "samples": done.samples,
        "changed": changed_weights(before, result),
    }
    return with_step(result, COMPENSATE, told)


def with_rounds(result: Model, before: Model, rounds: Sequence[Mapping[str, Any]], job: JobOptions) -> Model:
    """What rounds of removing, compensating and recovering have made, which tells so after the removal."""
    told = {
        "data": _data(job),
        "changed": changed_weights(before, result),
        "augment": job.augment,
        "rounds": list(rounds),
    }
    return with_step(with_steps(result, steps_of(before)), "recover", told)


def with_answers(model: Model, fidelity: Fidelity | None) -> Model:
    """The model, whose last step tells what is left of the answers after it, if that is known."""
    steps = steps_of(model)
    if fidelity is None or fidelity.share is None or not steps:
        return model
    told: dict[str, Any] = {
        "verdict": fidelity.verdict,
        "share": round(fidelity.share, 3),
        "samples": fidelity.samples,
        "words": [f"{one.words} ({one.task})" for one in fidelity.answers],
    }
    if fidelity.made:
        told["synthetic"] = fidelity.made
    return with_steps(model, [*steps[:-1], {**steps[-1], "answers": told}])


def with_promise(model: Model, kept: Kept[Any]) -> Model:
    """The model, whose last step, if it has one, tells what is proven of its loss."""
    steps = steps_of(model)
    if not steps:
        return model
    path = [
        [one.name, round(one.losses.mean, 5), None if one.bound is None else round(one.bound.upper, 5)]
        for one in kept.trials
    ]
    told = {"what": kept.promise.proven_on.what, "max_loss": kept.promise.most, **kept.bound.to_dict()}
    words = kept.sentences[0] if kept.promise.most < 1 else kept.measured
    told |= {"words": [words], "path": path, "chosen": kept.best.name}
    return with_steps(model, [*steps[:-1], {**steps[-1], "promise": told}])


@dataclass(frozen=True)
class ToldPromise:
    """What a file tells of a promise: in words, which candidate was chosen, and of each its loss and bound, as shares.

    The loss is that on the samples to choose by; the bound is None where a candidate was not tested.
    """

    words: tuple[str, ...]
    chosen: str
    most: float
    path: tuple[tuple[str, float, float | None], ...]


def promise_told(model: Model) -> ToldPromise | None:
    """What a file tells of a promise, and of the candidates that were tried; None if weights have changed."""
    steps = steps_of(model)
    told = steps[-1].get("promise") if steps and as_left(model) else None
    if not isinstance(told, dict) or not isinstance(told.get("words"), list):
        return None
    path = told.get("path")
    try:
        rows = [(str(name), float(loss), None if upper is None else float(upper)) for name, loss, upper in path or ()]
        most = float(told.get("max_loss", 1.0))
    except (TypeError, ValueError):
        rows, most = [], 1.0  # as an earlier version wrote it, or damaged: the words say what counts
    return ToldPromise(tuple(map(str, told["words"])), str(told.get("chosen", "")), most, tuple(rows))


@dataclass(frozen=True)
class ToldAnswers:
    """What a file tells of its answers: the verdict, that in words, and what its samples were made of, if they were."""

    verdict: Verdict
    words: tuple[str, ...]
    made: str = ""


def answers_told(model: Model) -> ToldAnswers | None:
    """What a file's last step tells of its answers; None if it does not, or weights have changed since."""
    steps = steps_of(model)
    told = steps[-1].get("answers") if steps and as_left(model) else None
    if not isinstance(told, dict) or told.get("verdict") not in VERDICTS:
        return None
    words = told.get("words")
    made = str(told.get("synthetic") or "")
    return ToldAnswers(told["verdict"], tuple(map(str, words)) if isinstance(words, list) else (), made)


def with_integers(done: Quantization, given: Given) -> Model:
    """The model, which tells what became integers (if anything did), with what data, and what was proven of that."""
    if done.certificate is None:
        return done.model
    proof = done.certificate
    told = {
        "format": str(done.format),
        "data": _data(given),
        "samples": done.samples,
        "method": done.method,
        "layers": len(done.layers),
        "equalised": done.equalised,
        "certificate": {"passed": proof.passed, "nodes": proof.nodes, "worst": proof.worst},
    }
    return with_step(done.model, QUANTIZE, told)


def with_form(done: Conversion, given: Given) -> Model:
    """The converted model, which tells into what it was converted, and what was proven of its weights."""
    told = {
        "form": done.form,
        "data": None if given.calibration is None else _data(given),
        "weights": {"compared": done.weights.count, "worst": round(done.weights.worst, 4)},
    }
    return with_step(done.model, QUANTIZE, told)


def _data(given: Given) -> str:
    return without_folders(given.calibration) if isinstance(given.calibration, str) else IN_PYTHON


def job_of(model: Model) -> Mapping[str, Any]:
    """The options of proving and repairing that a file tells of, as far as a command line can take them."""
    found = [step.get("job") for step in steps_of(model) if step.get("step") == PRUNE]
    job = found[-1] if found else None
    if not isinstance(job, dict):
        return {}
    return {name: value for name, value in job.items() if (name, value) != ("calibration", IN_PYTHON)}


def changed_weights(before: Model, after: Model) -> list[str]:
    """The weights of the main graph that are new, or have other values."""
    found = []
    for name, weight in after.weights.items():
        known = before.weights.get(name)
        if weight is known:
            continue
        if known is None or known.shape != weight.shape or known.array.tobytes() != weight.array.tobytes():
            found.append(name)
    return found


def plan_of(model: Model) -> Plan | None:
    """The last plan that a file tells of, None if it does not. Raises PlanError where it is damaged."""
    found = [step for step in steps_of(model) if step.get("step") == PRUNE]
    return unpacked(str(found[-1].get("plan", ""))) if found else None


def original_of(model: Model) -> str | None:
    """The digest of the model that the last plan was for, None if the file does not tell."""
    found = [step.get("original") for step in steps_of(model) if step.get("step") == PRUNE]
    return found[-1] if found and isinstance(found[-1], str) else None


def as_left(model: Model) -> bool:
    """Whether the weights are, to the bit, what the last step that the file tells of has left."""
    steps = steps_of(model)
    return bool(steps) and has_weights(model, steps[-1].get("weights"))


def since_removal(model: Model) -> Sequence[Mapping[str, Any]]:
    """The steps after the last removal; all, if the file tells of none."""
    steps = steps_of(model)
    last = max((index for index, step in enumerate(steps) if step.get("step") == PRUNE), default=-1)
    return steps[last + 1 :]


def packed(plan: Plan) -> str:
    """A plan as short text."""
    data = plan.to_dict()
    # Coupled axes lose the same positions: each list is written once.
    lists: dict[tuple[int, ...], int] = {}
    removed = {
        tensor: {dim: lists.setdefault(tuple(positions), len(lists)) for dim, positions in axes.items()}
        for tensor, axes in data["removed"].items()
    }
    text = json.dumps({**data, "removed": removed, "positions": list(lists)}, separators=(",", ":"))
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str) -> Plan:
    """The plan of :func:`packed`. Raises PlanError if the text is none."""
    try:
        reader = zlib.decompressobj()
        raw = reader.decompress(base64.b85decode(text), _MOST)
        if reader.unconsumed_tail:
            raise ValueError("it is too large")
        data = parse(raw.decode("utf-8"))
        lists = data.pop("positions")
        data["removed"] = {
            tensor: {dim: list(lists[index]) for dim, index in axes.items()} for tensor, axes in data["removed"].items()
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as error:
        raise PlanError(f"the plan in the model's metadata is damaged ({error}); give the plan's file") from error
    return Plan.from_dict(data)
