"""How ``prune`` and ``apply`` end: verified, written, and reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli.files import save_model, save_plan
from onnxprune.cli.reading import MACS, Reading, assumptions, unknown
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import long

if TYPE_CHECKING:
    from onnxprune.certificate import Certificate
    from onnxprune.comparison import Comparison
    from onnxprune.model import Model
    from onnxprune.plans import Plan


@dataclass(frozen=True)
class Job:
    """What is to be made of which model, and where it goes."""

    reading: Reading
    output: Path
    plan_output: Path | None
    force: bool
    verify: bool


def finish(terminal: Terminal, job: Job, plan: Plan) -> None:
    """Apply a plan, verify the result, write it and report.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the result is not what was promised; nothing is written.
        OutputError: it cannot be written.
    """
    from onnxprune.comparison import compare
    from onnxprune.compression import apply

    comparison = compare(job.reading.analysis, plan)
    with terminal.step("Removing channels"):
        pruned = apply(job.reading.model, plan)
    certificate = _certified(terminal, job, pruned, plan) if job.verify else None
    with terminal.step(f"Writing {job.output.name}"):
        save_model(pruned, job.output, force=job.force)
        if job.plan_output is not None:
            save_plan(plan, job.plan_output)
    before = {**comparison.before, "file_size": job.reading.model.file_size}
    after = {**comparison.after, "file_size": pruned.file_size}
    terminal.json(_report(job, plan, comparison, before, after, certificate))
    if not terminal.as_json:
        _show(terminal, job, plan, comparison, before, after, certificate)


def _certified(terminal: Terminal, job: Job, pruned: Model, plan: Plan) -> Certificate:
    from onnxprune.certificate import verify
    from onnxprune.compression import require
    from onnxprune.errors import VerificationError

    with terminal.step("Verifying"):
        try:
            certificate = verify(job.reading.model, pruned, plan, input_shapes=job.reading.shapes)
        except VerificationError as error:
            advice = "nothing was written (--no-verify writes without this check)"
            raise VerificationError(f"{error}; {advice}") from error
        require(certificate)
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
    }


def _show(
    terminal: Terminal,
    job: Job,
    plan: Plan,
    comparison: Comparison,
    before: dict[str, float],
    after: dict[str, float],
    certificate: Certificate | None,
) -> None:
    from onnxprune.cli.tables import change_table, totals_table

    terminal.show(change_table(comparison, terminal.wide), "", totals_table(before, after), "")
    terminal.show(assumptions(job.reading.analysis), MACS)
    for line in unknown(job.reading.analysis):
        terminal.show(f"Not understood, and therefore pinned: {line}", style="yellow")
    for reason in comparison.approximate:
        terminal.show(f"Approximate: {reason}. The certificate's reference sees kept channels only.", style="yellow")
    if not plan:
        terminal.show("The model meets the budget as it is: nothing was removed.", style="yellow")
    if certificate is None:
        terminal.show("No certificate: the result was not verified.", style="yellow")
    else:
        terminal.show(certificate_line(certificate), style="green" if certificate.passed else "red")
    also = "" if job.plan_output is None else f", the plan to {job.plan_output}"
    terminal.show(f"Wrote {job.output} ({long(after['file_size'], 'B')}){also}.")


def certificate_line(certificate: Certificate) -> str:
    """What was measured, in one sentence."""
    verdict = "passed" if certificate.passed else "FAILED"
    samples = "a random input" if certificate.samples == 1 else f"{certificate.samples} random inputs"
    return (
        f"Certificate {verdict}: on {samples}, the outputs differ from those of the masked original by at most "
        f"{certificate.max_absolute:.1e}, or {certificate.max_relative:.1e} of the largest value "
        f"({certificate.tolerance:.0e} allowed)."
    )
