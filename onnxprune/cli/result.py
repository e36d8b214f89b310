"""How ``prune`` and ``apply`` end: verified, written, and reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune._display import MACS, long
from onnxprune.analysis.sentences import assumptions, carried, not_understood
from onnxprune.cli.files import STDOUT, Paths, save_plan
from onnxprune.cli.integers import quantization_lines
from onnxprune.cli.latency import latency_lines
from onnxprune.cli.names import with_layers
from onnxprune.cli.reading import Reading
from onnxprune.cli.recovering import recovery_line, rounds_line, watching
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.timing import timing_lines
from onnxprune.errors import VerificationError
from onnxprune.pruning.options import JobOptions, PlanOptions, PromiseOptions

if TYPE_CHECKING:
    from onnxprune.data.fidelity import Fidelity
    from onnxprune.data.tasks import Verdict
    from onnxprune.ir.engine import Engine
    from onnxprune.latency.bench import Bench
    from onnxprune.latency.fitting import LatencyFit
    from onnxprune.latency.predicting import Elsewhere, Foretold
    from onnxprune.pruning.certificate import Certificate
    from onnxprune.pruning.comparison import Comparison
    from onnxprune.pruning.compensation import Compensation
    from onnxprune.pruning.pipeline import Compression
    from onnxprune.pruning.plan import Plan
    from onnxprune.pruning.promising import Kept
    from onnxprune.pruning.proving import Proof
    from onnxprune.pruning.quantization.quantizing import Quantization
    from onnxprune.pruning.recovery import Recovery


@dataclass(frozen=True)
class Task:
    """What is to be made of which model and how (the options of the plan, or the plan), and where it goes."""

    reading: Reading
    output: Path
    plan_output: Path | None
    paths: Paths
    how: PlanOptions | Plan
    latency: LatencyFit | Elsewhere | None = None
    engine: Engine | None = None
    timed: bool = False
    """Whether the result is timed beside the original."""
    promise: PromiseOptions | None = None


def finish(terminal: Terminal, task: Task, job: JobOptions) -> None:
    """Make a smaller model, write it and report.

    Raises:
        BudgetError: the budget cannot be met.
        PlanError: the plan does not fit the model.
        VerificationError: the result is not what was promised; nothing is written.
        OutputError: it cannot be written.
    """
    from onnxprune.pruning.comparison import compare
    from onnxprune.pruning.pipeline import VERIFYING, run

    @contextmanager
    def step(title: str) -> Iterator[None]:
        with terminal.step(title):
            try:
                yield
            except VerificationError as error:
                if title != VERIFYING:
                    raise
                advice = "nothing was written (--no-verify writes without this check)"
                raise VerificationError(f"{error}; {advice}") from error

    job = with_layers(job, task.reading.analysis)
    watch = watching(terminal, job.minutes)
    made = run(task.reading.model, task.how, job, engine=task.engine, progress=step, watch=watch, promise=task.promise)
    with terminal.step(f"Writing {task.output.name}"):
        task.paths.save_model(made.model, task.output)
        if task.plan_output is not None:
            save_plan(made.plan, task.plan_output)
    timed = _timed(terminal, task, job)
    comparison = compare(task.reading.analysis, made.plan)
    before = {**comparison.before, "file_size": task.reading.model.file_size}
    after = {**comparison.after, "file_size": made.model.file_size}
    measured = {"bench": None if timed is None or isinstance(timed, str) else timed.to_dict()}
    terminal.json({**_report(task, made, comparison, before, after), **measured})
    if not terminal.as_json:
        _show(terminal, task, made, comparison, before, after, timed)


def _timed(terminal: Terminal, task: Task, job: JobOptions) -> Bench | str | None:
    """The result beside the original; nothing where that very file was measured to find the plan."""
    original = task.reading.model.path
    known = task.latency is not None and not job.int8
    if task.engine is None or not task.timed or known or original is None or task.output == STDOUT:
        return None
    from onnxprune.cli.timing import beside

    return beside(terminal, original, task.output, shapes=task.reading.shapes or None, engine=task.engine)


def _report(
    task: Task, made: Compression, comparison: Comparison, before: dict[str, float], after: dict[str, float]
) -> dict[str, Any]:
    shapes = task.reading.analysis.shapes
    return {
        "model": str(task.reading.model.path),
        "output": str(task.output),
        "plan": None if task.plan_output is None else str(task.plan_output),
        "settings": dict(made.plan.settings),
        "input_shapes": {name: list(shape) for name, shape in shapes.binding.items()},
        "assumed_inputs": list(shapes.assumed),
        **comparison.to_dict(),
        "before": before,
        "after": after,
        "removed": {key: 1 - after[key] / value if value else 0.0 for key, value in before.items()},
        "unknown": task.reading.analysis.unknown,
        "certificate": _plain(made.certificate),
        "latency": _plain(_latency(task, made)),
        "compensation": _plain(made.compensation),
        "recovery": _plain(made.recovery),
        "rounds": [one.to_dict() for one in made.rounds],
        "quantization": _plain(made.quantization),
        "fidelity": _plain(made.fidelity),
        "promise": _plain(made.promise),
    }


def _latency(task: Task, made: Compression) -> LatencyFit | Foretold | None:
    """How a latency was met, or what is predicted of one."""
    from onnxprune.latency.predicting import Elsewhere

    return task.latency.told(made.plan) if isinstance(task.latency, Elsewhere) else task.latency


def _plain(
    result: Certificate | LatencyFit | Foretold | Compensation | Recovery | Quantization | Fidelity | Kept[Any] | None,
) -> dict[str, Any] | None:
    return None if result is None else result.to_dict()


def _show(
    terminal: Terminal,
    task: Task,
    made: Compression,
    comparison: Comparison,
    before: dict[str, float],
    after: dict[str, float],
    timed: Bench | str | None,
) -> None:
    from onnxprune.cli.tables import change_table, totals_table

    terminal.show(change_table(comparison, terminal.wide), "", totals_table(before, after), "")
    for region in made.plan.replaced:
        terminal.show(f"Gave way: {region.words}.")
    terminal.show(assumptions(task.reading.analysis), MACS)
    for line in carried(task.reading.analysis, made.model):
        terminal.show(line)
    for line in not_understood(task.reading.analysis):
        terminal.show(line, style="yellow")
    for reason in comparison.approximate:
        terminal.show(f"Approximate: {reason}. The certificate's reference sees kept channels only.", style="yellow")
    if not made.plan:
        how = "in int8" if getattr(task.latency, "precision", "") == "int8" else "as it is"
        terminal.show(f"The model meets the budget {how}: nothing was removed.", style="yellow")
    if made.certificate is None:
        terminal.show("No certificate: the result was not verified.", style="yellow")
    else:
        show_certificate(terminal, made.certificate)
    latency = _latency(task, made)
    for line in [*data_lines(made), *([] if latency is None else latency_lines(latency))]:
        terminal.show(line)
    for line, style in [*quantization_lines(made.quantization), *answer_lines(made.fidelity)]:
        terminal.show(line, style=style)
    for sentence in () if made.promise is None else made.promise.sentences:
        terminal.show(sentence, style="green")
    if timed is not None:
        for line, style in timing_lines(timed, made.plan):
            terminal.show(line, style=style)
    also = "" if task.plan_output is None else f", the plan to {task.plan_output}"
    terminal.show(f"Wrote {task.output} ({long(after['file_size'], 'B')}){also}.")


def show_certificate(terminal: Terminal, certificate: Certificate) -> None:
    """What the certificate says: green where it is complete, yellow where something was not witnessed, else red."""
    for line in certificate.sentences:
        terminal.show(line, style="green" if certificate.complete else "yellow" if certificate.passed else "red")


def show_proof(terminal: Terminal, proof: Proof) -> None:
    """What was proven: green where all of it is, yellow where something was not witnessed, else red."""
    complete = proof.passed and proof.certificate.complete
    for line in proof.sentences:
        terminal.show(line, style="green" if complete else "yellow" if proof.passed else "red")


def data_lines(made: Compression) -> list[str]:
    """What compensation did, and how the outputs compare on data."""
    lines = []
    done, fidelity = made.compensation, made.fidelity
    if done is not None:
        lines.append(
            f"Compensation ({done.method}) with {done.samples} samples, after the certificate: "
            f"{len(done.changed)} layers changed."
        )
        lines.extend(f"Not fitted: {name} ({reason})." for name, reason in done.skipped.items())
        lines.extend(_few_samples(done))
    if made.rounds:
        lines.append(rounds_line(made.rounds))
    if made.recovery is not None:
        lines.append(recovery_line(made.recovery))
    if fidelity is None:
        return lines
    for output in fidelity.outputs:
        kind = f"{'calibration' if fidelity.seen else 'other'} {'synthetic ' if fidelity.made else ''}"
        where = f"{fidelity.samples} {kind}samples"
        parts = [f"cosine {output.cosine:.4f}"]
        if output.agreement is not None:
            parts.insert(0, f"top-1 as the original's {output.agreement:.1%}")
            parts.append(f"KL {output.kl:.4f}")
        if output.accuracy_before is not None:
            parts.append(f"accuracy {output.accuracy_before:.2%} → {output.accuracy_after:.2%}")
        if output.rows and output.worst[0].cosine < output.cosine - 0.01:
            worst = output.worst[0]
            parts.append(f"the worst of {output.rows} rows is {worst.index} with cosine {worst.cosine:.4f}")
        lines.append(f"Output '{output.name}' on {where}: {', '.join(parts)}.")
    return lines


_STYLES: dict[Verdict, str] = {"kept": "green", "damaged": "yellow", "ruined": "bold red"}
_NEXT = (
    "let the original teach it (--recover, or onnxprune recover), try smaller maps (--levers channels,resolution), "
    "remove less, or give more samples"
)


def answer_lines(fidelity: Fidelity | None) -> list[tuple[str, str]]:
    """What is left of the answers, in words, with a style: a verdict for every output, and what to do next."""
    if fidelity is None:
        return [("Answers unknown; next: --calibrate FOLDER (samples of what the model will see).", "yellow")]
    if not fidelity.answers:
        return [("Answers unknown: the outputs are none that can be compared; next: --task NAME.", "yellow")]
    lines = [(line, "yellow") for line in synthetic_lines(fidelity.made)]
    lines += [(one.sentence, _STYLES[one.verdict]) for one in fidelity.answers]
    if fidelity.verdict != "kept":
        lines.append((f"Next: {_NEXT}.", _STYLES[fidelity.verdict or "damaged"]))
    return lines


def synthetic_lines(made: str) -> list[str]:
    """That samples were synthetic, if they were (``made`` says of what)."""
    if not made:
        return []
    return [f"The samples are synthetic ({made}): fidelity on them is no evidence about real data."]


def _few_samples(done: Compensation) -> list[str]:
    """One line about the layers that have too few samples for their unknowns, if there are any."""
    few = done.few
    if not few:
        return []
    worst = ", ".join(f"{layer.name} ({layer.rows:,} rows for {layer.unknowns:,} unknowns)" for layer in few[:3])
    more = f" and {len(few) - 3} more" if len(few) > 3 else ""
    return [
        f"Few samples for {worst}{more}: their ridge was chosen on samples left out; more samples "
        "(--calibration-samples) let them fit better."
    ]
