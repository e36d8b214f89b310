"""What a reader wants to know first: is it right, is it good, is it faster; one line for each, failures in red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from onnxprune._display import percent
from onnxprune.pruning.history import COMPENSATE, QUANTIZE, ToldPromise
from onnxprune.pruning.proving import told_of
from onnxprune.report.content import Candidate, Report

Tone: TypeAlias = Literal["good", "warn", "bad", "plain"]
_ORDER: tuple[Tone, ...] = ("bad", "warn", "plain", "good")
_TONES: Mapping[str, Tone] = {"kept": "good", "damaged": "warn", "ruined": "bad"}
_UNKNOWN = "Let the report measure them: --calibrate FOLDER (samples of what the model will see)."
_NAMES = {
    COMPENSATE: "Refit",
    "recover": "Recovery",
    "train": "Training",
    "write_back": "New weights",
    QUANTIZE: "int8",
}


@dataclass(frozen=True)
class Line:
    """One finding: about what, in a word, in sentences, and how a reader is to take it."""

    about: str
    word: str
    sentences: tuple[str, ...]
    tone: Tone
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """A table below the sentences, if there are rows."""


@dataclass(frozen=True)
class Verdict:
    """All findings about one candidate, and the worst of them as a headline."""

    name: str
    headline: str
    tone: Tone
    lines: tuple[Line, ...]


def verdicts(report: Report) -> list[Verdict]:
    """One per candidate, failures first."""
    found = [_verdict(report, candidate, at) for at, candidate in enumerate(report.candidates, start=1)]
    return sorted(found, key=lambda verdict: verdict.tone != "bad")


def failed(report: Report) -> bool:
    """Whether any candidate is not what its plan makes of the original."""
    return any(candidate.proof is not None and not candidate.proof.passed for candidate in report.candidates)


def _verdict(report: Report, candidate: Candidate, at: int) -> Verdict:
    proof, answers = _certificate(candidate), _answers(candidate)
    promise = () if candidate.promise is None else (_promise(candidate.promise),)
    steps = (_step(step) for step in candidate.steps)
    lines = (proof, answers, *promise, *_gave_way(candidate), *steps, *_time(report, at), _size(candidate))
    tone = min((proof.tone, answers.tone), key=_ORDER.index)
    if proof.tone == "bad":
        headline = "The certificate FAILED: do not use this file"
    else:
        first = {"passed": "Proven", "passed in part": "Proven in part"}.get(proof.word, "Not proven")
        headline = f"{first}; answers {answers.word}"
    return Verdict(candidate.subject.name, headline, tone, lines)


def _promise(told: ToldPromise) -> Line:
    """What is proven of the loss, and the path of candidates with their bounds, in the order of the tests."""

    def bound(upper: float | None) -> str:
        return "not tested" if upper is None else f"{100 * upper:.2f} %, {'kept' if upper <= told.most else 'broken'}"

    rows = tuple(
        (f"{name} (taken)" if name == told.chosen else name, f"{100 * loss:.2f} %", bound(upper))
        for name, loss, upper in told.path
    )
    words = tuple(words.removeprefix("Promise kept: ") for words in told.words)
    said = (words[0][:1].upper() + words[0][1:], *words[1:]) if words else ()
    return Line("Promise", "kept", said, "good", ("candidate", "lost, to choose by", "lost at most, proven"), rows)


def _gave_way(candidate: Candidate) -> Iterator[Line]:
    """What regions of the original went, why, and what that cost."""
    gone = () if candidate.plan is None else candidate.plan.replaced
    if gone:
        word = f"{len(gone)} region{'s' if len(gone) > 1 else ''}"
        yield Line("Gave way", word, tuple(f"{one.words}." for one in gone), "plain")


def _certificate(candidate: Candidate) -> Line:
    proof = candidate.proof
    if proof is None:
        return Line("Certificate", "none", (candidate.remark,), "warn")
    said = [_sentence(line) for line in proof.sentences]
    if not proof.passed:
        return Line("Certificate", "FAILED", (*said, *([candidate.remark] if candidate.remark else [])), "bad")
    if proof.changed:
        # What changed them follows, a line for each step.
        said = [_sentence(line) for line in proof.certificate.sentences]
        said.append(f"Shown with the original's values for {len(proof.changed)} weights that were changed since.")
    complete = proof.certificate.complete
    return Line("Certificate", "passed" if complete else "passed in part", tuple(said), "good" if complete else "warn")


def _sentence(line: str) -> str:
    """Without the word that stands before it in bold."""
    for start in ("Certificate passed: ", "Certificate FAILED: "):
        line = line.removeprefix(start)
    return line[:1].upper() + line[1:]


def _answers(candidate: Candidate) -> Line:
    fidelity = candidate.fidelity
    if fidelity is not None and fidelity.verdict is not None:
        where = f"On {fidelity.samples} {'of the samples it was fitted to' if fidelity.seen else 'samples'}."
        said = (*(_sentence(f"{one.words} ({one.task}).") for one in fidelity.answers), where)
        return _judged(fidelity.verdict, said, fidelity.made)
    told = candidate.answers
    if told is not None:
        said = (*(_sentence(f"{words}.") for words in told.words), "So the file tells; --calibrate measures it anew.")
        return _judged(told.verdict, said, told.made)
    return Line("Answers", "unknown", (_UNKNOWN,), "warn")


def _judged(verdict: str, said: tuple[str, ...], made: str) -> Line:
    """``made`` says of what the samples are made, if they are synthetic: no evidence about real data."""
    if not made:
        return Line("Answers", verdict, said, _TONES[verdict])
    why = f"The samples are synthetic ({made}): that is no evidence about real data."
    tone: Tone = "bad" if verdict == "ruined" else "warn"
    return Line("Answers", f"{verdict} on synthetic samples", (*said, why), tone)


def _step(step: Mapping[str, Any]) -> Line:
    """What happened after the removal."""
    kind = str(step.get("step"))
    name = _NAMES.get(kind, kind)
    parts = []
    if kind == COMPENSATE and isinstance(step.get("method"), str) and step["method"] != "refit":
        parts.append(str(step["method"]))
    if isinstance(step.get("samples"), int):
        parts.append(f"{step['samples']} samples")
    if isinstance(step.get("data"), str):
        parts.append(f"of {step['data']}")
    if isinstance(step.get("step"), str) and isinstance(step.get("epochs"), int):
        parts.append(f"{step['epochs']} epochs")
    if isinstance(step.get("steps"), int):
        parts.append(f"{step['steps']} steps")
    damage = step.get("damage")
    if isinstance(damage, list) and len(damage) == 2:
        parts.append(f"error {damage[0]} → {damage[1]}")
    if isinstance(step.get("layers"), int):
        parts.append(f"{step['layers']} layers")
    if isinstance(step.get("changed"), list):
        parts.append(f"{len(step['changed'])} weights changed")
    said = ", ".join(parts).replace("samples, of", "samples of") or told_of(step)
    proof = step.get("certificate")
    if isinstance(proof, dict):
        said += ", certificate passed" if proof.get("passed") else ", certificate FAILED"
    return Line(name, "", (f"{said}.",), "plain")


def _time(report: Report, at: int) -> list[Line]:
    timed = report.times
    if timed is None:
        return []
    if isinstance(timed, str):
        return [Line("Time of a run", "not measured", (f"{timed}.",), "warn")]
    ratio = timed.subjects[at].ratio
    assert ratio is not None  # of all but the first
    said = [f"{timed.beside_first(at)}.", f"On {report.machine}, {report.date}."]
    if timed.noise:
        said.append("The machine was noisy: measure again with 'onnxprune bench'.")
    faster, slower = ratio.high < 1, ratio.low > 1
    word = f"{1 / ratio.median:.2f} × as fast" if faster else "slower" if slower else "about the same"
    return [Line("Time of a run", word, tuple(said), "good" if faster else "warn")]


def _size(candidate: Candidate) -> Line:
    before, after = candidate.comparison.before, candidate.comparison.after
    titles = {"params": "parameters", "flops": "MACs", "memory": "memory"}
    gone = [f"{percent(1 - after[key] / before[key])} of the {title}" for key, title in titles.items() if before[key]]
    return Line("Removed", "", (f"{', '.join(gone)}.",), "plain")
