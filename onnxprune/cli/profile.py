"""``onnxprune profile``: what a model takes on this machine, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune._display import long, seconds
from onnxprune.cli.files import Paths, save_text
from onnxprune.cli.latency import ProviderOption, RuntimeOption, ThreadsOption
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.terminal import Terminal


def profile(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="TIMES", help="The file of times, JSON.", show_default=False),
    ],
    threads: ThreadsOption = 1,
    provider: ProviderOption = "CPUExecutionProvider",
    runtime: RuntimeOption = "onnxruntime",
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record what a model takes on this machine, to plan and to split by it on another."""
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    paths.write(output)
    reading = read_and_analyze(terminal, model, input_shape)
    from onnxprune.ir.engine import Engine
    from onnxprune.latency.machine import LocalMachine
    from onnxprune.latency.times import record_times

    engine = Engine(threads, 1, provider, runtime)
    with terminal.step("Measuring"):
        times = record_times(reading.analysis, machine=LocalMachine(engine))
    save_text(times.to_json(), output)
    terminal.json(times.to_dict())
    baseline, peaks = times.profile.baseline, times.capacity
    terminal.show(
        f"{seconds(baseline.median)} a run (middle half {seconds(baseline.lower)} to {seconds(baseline.upper)}), "
        f"{len(times.profile.nodes)} nodes; {engine.runtime} with {engine}.",
        f"The machine reaches {long(peaks.macs, 'MACs')} and {long(peaks.bandwidth, 'B')} a second.",
        f"Wrote {output}.",
    )
