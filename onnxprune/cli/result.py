"""How ``prune`` and ``apply`` end: verified, written, and reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune._display import MACS, long
from onnxprune.analysis.sentences import assumptions, carried, not_understood
from onnxprune.cli.files import Paths, save_plan
from onnxprune.cli.latency import latency_lines
from onnxprune.cli.options import Proof
from onnxprune.cli.reading import Reading
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.latency.fitting import LatencyFit
    from onnxprune.pruning.certificate import Certificate
    from onnxprune.pruning.comparison import Comparison
    from onnxprune.pruning.compensation import Compensation
    from onnxprune.pruning.pipeline import Finished
    from onnxprune.pruning.plan import Plan


@dataclass(frozen=True)
class Calibration:
    """The values of ``--calibrate``, ``--compensate``, ``--calibration-samples`` and ``--memory``."""

    spec: str | None = None
    compensate: str | None = None
    samples: int = 256
    memory: float | None = None

    @property
    def method(self) -> str | None:
        """The compensation to run: refit where there is data and nothing else was asked for."""
        if self.compensate is None:
            return None if self.spec is None else "refit"
        return None if self.compensate == "none" else self.compensate

    def collected(self, model: Model) -> tuple[Samples, Samples, bool] | None:
        """Samples to calibrate with, samples to compare with, and whether they are the same; None without data."""
        if self.spec is None:
            return None
        return model.derived(_Collect(self.spec, self.samples))


@dataclass(frozen=True)
class _Collect:
    """Collecting these samples: a key that the model can remember them by."""

    spec: str
    count: int

    def __call__(self, model: Model) -> tuple[Samples, Samples, bool]:
        from onnxprune.data.samples import collect_both

        return collect_both(self.spec, model, self.count)


@dataclass(frozen=True)
class Job:
    """What is to be made of which model, and where it goes."""

    reading: Reading
    output: Path
    plan_output: Path | None
    paths: Paths
    proof: Proof
    calibration: Calibration = Calibration()
    latency: LatencyFit | None = None


def finish(terminal: Terminal, job: Job, plan: Plan) -> None:
    """Apply a plan, verify the result, write it and report.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the result is not what was promised; nothing is written.
        OutputError: it cannot be written.
    """
    from onnxprune.pruning.comparison import compare
    from onnxprune.pruning.pipeline import apply

    comparison = compare(job.reading.analysis, plan)
    with terminal.step("Removing channels"):
        pruned = apply(job.reading.model, plan)
    certificate = _certified(terminal, job, pruned, plan) if job.proof.asked else None
    finished = _calibrated(terminal, job, pruned, plan)
    pruned = finished.model
    with terminal.step(f"Writing {job.output.name}"):
        job.paths.save_model(pruned, job.output)
        if job.plan_output is not None:
            save_plan(plan, job.plan_output)
    before = {**comparison.before, "file_size": job.reading.model.file_size}
    after = {**comparison.after, "file_size": pruned.file_size}
    terminal.json({**_report(job, plan, comparison, before, after, certificate), **_measured(finished)})
    if not terminal.as_json:
        _show(terminal, job, plan, comparison, before, after, certificate, finished)


def _calibrated(terminal: Terminal, job: Job, pruned: Model, plan: Plan) -> Finished:
    from onnxprune.pruning.pipeline import Finished
    from onnxprune.pruning.pipeline import finish as compensated

    calibration = job.calibration
    if calibration.spec is None and calibration.method is None:
        return Finished(pruned)
    given = calibration.collected(job.reading.model)
    with terminal.step("Compensating" if calibration.method else "Comparing"):
        memory = None if calibration.memory is None else int(calibration.memory)
        return compensated(job.reading.model, pruned, plan, given, calibration.method, memory=memory)


def _measured(finished: Finished) -> dict[str, Any]:
    compensation, fidelity = finished.compensation, finished.fidelity
    return {
        "compensation": None if compensation is None else compensation.to_dict(),
        "fidelity": None if fidelity is None else fidelity.to_dict(),
    }


def _certified(terminal: Terminal, job: Job, pruned: Model, plan: Plan) -> Certificate:
    from onnxprune.errors import VerificationError
    from onnxprune.pruning.certificate import verify

    with terminal.step("Verifying"):
        try:
            certificate = verify(
                job.reading.model, pruned, plan, input_shapes=job.reading.shapes, memory=job.proof.memory
            )
            certificate.require(accept_unwitnessed=job.proof.accept_unwitnessed)
        except VerificationError as error:
            advice = "nothing was written (--no-verify writes without this check)"
            raise VerificationError(f"{error}; {advice}") from error
    return certificate


def _report(
    job: Job,
    plan: Plan,
    comparison: Comparison,
    before: dict[str, float],
    after: dict[str, float],
    certificate: Certificate | None,
) -> dict[str, Any]:
    shapes = job.reading.analysis.shapes
    return {
        "model": str(job.reading.model.path),
        "output": str(job.output),
        "plan": None if job.plan_output is None else str(job.plan_output),
        "settings": dict(plan.settings),
        "input_shapes": {name: list(shape) for name, shape in shapes.binding.items()},
        "assumed_inputs": list(shapes.assumed),
        **comparison.to_dict(),
        "before": before,
        "after": after,
        "removed": {key: 1 - after[key] / value if value else 0.0 for key, value in before.items()},
        "unknown": job.reading.analysis.unknown,
        "certificate": None if certificate is None else certificate.to_dict(),
        "latency": None if job.latency is None else job.latency.to_dict(),
    }


def _show(
    terminal: Terminal,
    job: Job,
    plan: Plan,
    comparison: Comparison,
    before: dict[str, float],
    after: dict[str, float],
    certificate: Certificate | None,
    finished: Finished,
) -> None:
    from onnxprune.cli.tables import change_table, totals_table

    terminal.show(change_table(comparison, terminal.wide), "", totals_table(before, after), "")
    terminal.show(assumptions(job.reading.analysis), MACS)
    for line in carried(job.reading.analysis, finished.model):
        terminal.show(line)
    for line in not_understood(job.reading.analysis):
        terminal.show(line, style="yellow")
    for reason in comparison.approximate:
        terminal.show(f"Approximate: {reason}. The certificate's reference sees kept channels only.", style="yellow")
    if not plan:
        terminal.show("The model meets the budget as it is: nothing was removed.", style="yellow")
    if certificate is None:
        terminal.show("No certificate: the result was not verified.", style="yellow")
    else:
        show_certificate(terminal, certificate)
    for line in [*data_lines(finished), *([] if job.latency is None else latency_lines(job.latency))]:
        terminal.show(line)
    also = "" if job.plan_output is None else f", the plan to {job.plan_output}"
    terminal.show(f"Wrote {job.output} ({long(after['file_size'], 'B')}){also}.")


def show_certificate(terminal: Terminal, certificate: Certificate) -> None:
    """What the certificate says: green where it is complete, yellow where something was not witnessed, else red."""
    for line in certificate.sentences:
        terminal.show(line, style="green" if certificate.complete else "yellow" if certificate.passed else "red")


def data_lines(finished: Finished) -> list[str]:
    """What compensation did, and how the outputs compare on data."""
    lines = []
    done, fidelity = finished.compensation, finished.fidelity
    if done is not None:
        lines.append(
            f"Compensation ({done.method}) with {done.samples} samples, after the certificate: "
            f"{len(done.changed)} layers changed."
        )
        lines.extend(f"Not fitted: {name} ({reason})." for name, reason in done.skipped.items())
        lines.extend(_few_samples(done))
    for output in () if fidelity is None else fidelity.outputs:
        where = f"{fidelity.samples} {'calibration' if fidelity.seen else 'other'} samples" if fidelity else ""
        parts = [f"cosine {output.cosine:.4f}"]
        if output.agreement is not None:
            parts.insert(0, f"top-1 as the original's {output.agreement:.1%}")
            parts.append(f"KL {output.kl:.4f}")
        if output.accuracy_before is not None:
            parts.append(f"accuracy {output.accuracy_before:.2%} → {output.accuracy_after:.2%}")
        lines.append(f"Output '{output.name}' on {where}: {', '.join(parts)}.")
    return lines


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
