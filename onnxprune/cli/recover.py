"""``onnxprune recover``: the original teaches the pruned model, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune._display import long
from onnxprune.cli.files import STDOUT, Paths
from onnxprune.cli.options import (
    ExternalDataOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    Offer,
    OutputOption,
    offering,
)
from onnxprune.cli.reading import read
from onnxprune.cli.recovering import recovery_line, watching
from onnxprune.cli.result import answer_lines
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.options import JobOptions

_ONLY = ("calibration", "minutes", "augment", "task", "calibration_samples")


@offering
def recover(
    *,
    model: ModelArgument,
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The model before.", show_default=False)],
    output: OutputOption,
    job: Annotated[JobOptions, Offer(_ONLY, defaults={"calibration_samples": 2048})],
    threads: Annotated[int, typer.Option(min=0, help="Threads of PyTorch; 0 leaves it to PyTorch.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from OUTPUT.checkpoint, which an interruption has left.")
    ] = False,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a pruned model to answer as the original does: no labels, block by block, then as a whole."""
    if not isinstance(job.calibration, str):
        raise UsageError("give samples with --calibrate; labels are not needed")
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal, external_data=external_data)
    paths.read_models(model, original)
    paths.read_data(job.calibration)
    paths.write_model(output)
    pruned, source = read(terminal, model), read(terminal, original)
    from onnxprune.data.fidelity import measure_fidelity
    from onnxprune.data.samples import collect_both
    from onnxprune.pruning.calibration import sourced
    from onnxprune.pruning.recovery import recover as teach

    _use(threads)
    with terminal.step("Reading data"):
        samples, others, same = collect_both(sourced(job.calibration, source), source, job.calibration_samples)
    kept = None if output == STDOUT else output.with_name(f"{output.name}.checkpoint")
    if resume and kept is None:
        raise UsageError("--resume goes on from a checkpoint beside the output; name a file")
    how: dict[str, Any] = {"minutes": job.minutes, "augment": job.augment, "task": job.task}
    watch = watching(terminal, job.minutes)
    done = teach(pruned, source, samples, **how, progress=watch, checkpoint=kept, resume=resume)
    fidelity = None if same else measure_fidelity(source, done.model, others, task=job.task)
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(done.model, output)
    left = None if fidelity is None else fidelity.to_dict()
    terminal.json({"model": str(model), "output": str(output), "recovery": done.to_dict(), "fidelity": left})
    terminal.show(recovery_line(done))
    if kept is not None and kept.exists():
        terminal.show(f"Interrupted: --resume goes on from {kept}.", style="yellow")
    for line, style in [] if fidelity is None else answer_lines(fidelity):
        terminal.show(line, style=style)
    terminal.show(f"Wrote {output} ({long(done.model.file_size, 'B')}).")


def _use(threads: int) -> None:
    if threads:
        try:
            import torch
        except ImportError:
            return  # What is missing, recovery says.
        torch.set_num_threads(threads)
