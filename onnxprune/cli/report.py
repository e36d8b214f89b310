"""``onnxprune report``: one HTML page about a model and its pruned forms."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long
from onnxprune.cli.errors import FAILED
from onnxprune.cli.files import Paths, save_plot, save_text
from onnxprune.cli.latency import ProviderOption, ThreadsOption
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, Offer, OutputOption, offering
from onnxprune.cli.reading import Reading, read_and_analyze
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.timing import NoBenchOption
from onnxprune.errors import UsageError, VerificationError
from onnxprune.pruning.options import JobOptions

if TYPE_CHECKING:
    from onnxprune.data.fidelity import Fidelity
    from onnxprune.exploration import Results
    from onnxprune.ir.engine import Engine
    from onnxprune.ir.model import Model, ModelLike
    from onnxprune.latency.bench import Bench
    from onnxprune.pruning.plan import Plan
    from onnxprune.pruning.proving import Proof
    from onnxprune.report import Candidate, Report, ReportedModel

_FAILED = "See whether the file belongs to this original and this plan; 'onnxprune verify' says the same of it."
_STYLES = {"good": "green", "warn": "yellow", "bad": "bold red", "plain": ""}
_PLOTS = ("complexity", "changes", "tradeoff")


@offering
def report(
    *,
    model: ModelArgument,
    output: OutputOption,
    pruned: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PRUNED...]", help="Pruned forms of it.", show_default=False),
    ] = None,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The plan of each PRUNED, in their order ('prune --plan-out' writes it); without PRUNED, what it "
            "would do. Repeatable.",
            show_default=False,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="What 'explore' recorded of the model.", show_default=False),
    ] = None,
    job: Annotated[
        JobOptions,
        Offer(
            ("calibration", "calibration_samples", "task"),
            helps={"calibration": "Samples, labels not needed (SPEC): measure what is left of the answers."},
        ),
    ],
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = 1,
    provider: ProviderOption = "CPUExecutionProvider",
    time: Annotated[bool, typer.Option("--time", help="Measure the time of every layer in onnxruntime, too.")] = False,
    no_bench: NoBenchOption = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="No certificates.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Write static plots beside the page, too, as PNG.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="The same as SVG.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about a model: what was proven, what it costs now, what was removed where.

    It needs nothing from the network, on any screen. Exits with 1 where a certificate fails; the page is written.
    """
    terminal = Terminal(as_json)
    files, plans = pruned or [], plan or []
    kinds = [kind for kind, wanted in (("png", png), ("svg", svg)) if wanted]
    if files and plans and len(files) != len(plans):
        raise UsageError(
            f"{len(plans)} plans are given for {len(files)} pruned models; give one --plan for each, in their order"
        )
    plots = [output.with_name(f"{output.stem}-{name}.{kind}") for name in _PLOTS for kind in kinds]
    paths = Paths()
    paths.read_models(model, *files)
    paths.read(*plans, results)
    paths.read_data(job.calibration if isinstance(job.calibration, str) else None)
    paths.write(output, *plots)
    from onnxprune.ir.engine import Engine
    from onnxprune.latency.machine import processor
    from onnxprune.pruning.plan import Plan
    from onnxprune.report import Report
    from onnxprune.report.page import render
    from onnxprune.report.verdict import failed, verdicts

    runs = None if results is None else _recorded(results)
    chosen = [Plan.load(path) for path in plans]
    first = chosen[0] if chosen else Plan({})
    reading = read_and_analyze(terminal, model, input_shape, first.split, first.input_shapes, first.state)
    if runs is not None:
        _check_same(reading.model, model, runs)
    what = _Wanted(terminal, reading, job, verify=not no_verify, engine=Engine(threads, provider=provider), layers=time)
    original = what.subject(model.name, reading, model)
    if files:
        of_each: Sequence[Plan | None] = chosen or [None] * len(files)
        pairs = zip(_names(files), files, of_each, strict=True)
        made = [what.from_file(original, name, path, its) for name, path, its in pairs]
    else:
        made = [what.from_plan(original, path.stem, its) for path, its in zip(plans, chosen, strict=True)]
    candidates = tuple(candidate for candidate, _ in made)
    times = None if no_bench or not made else what.times(model, [source for _, source in made])
    today = f"{datetime.now():%-d %B %Y, %H:%M}"
    content = Report(original, candidates, runs, _command(), times, processor(), today)
    with terminal.step("Drawing"):
        page = render(content)
    save_text(page, output)
    drawn = [path for kind in kinds for path in _save_plots(content, output, kind)]
    size = len(page.encode())
    names = [c.subject.name for c in candidates]
    bad = failed(content)
    told = {"output": str(output), "bytes": size, "candidates": names, "plots": [str(path) for path in drawn]}
    found = [{"name": one.name, "headline": one.headline, "passed": one.tone != "bad"} for one in verdicts(content)]
    terminal.json({**told, "verdicts": found, "passed": not bad})
    for one in verdicts(content):
        terminal.show(f"{one.name}: {one.headline}.", style=_STYLES[one.tone])
    also = f", and {', '.join(path.name for path in drawn)}" if drawn else ""
    terminal.show(f"Wrote {output} ({long(size, 'B')}): open it in a browser{also}.")
    if bad:
        raise typer.Exit(FAILED)


def _recorded(path: Path) -> Results:
    from onnxprune.exploration import read_results

    return read_results(path)


def _check_same(model: Model, path: Path, results: Results) -> None:
    """Raise ResultsError where the runs are those of another model."""
    from onnxprune.errors import ResultsError
    from onnxprune.ir.digest import model_digest

    if model_digest(model) != results.about.model_digest:
        raise ResultsError(
            f"{results.path} holds runs of another model ({results.about.model}), not of {path}; give that model, or "
            "the results of this one"
        )


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names, or their paths where names do not tell them apart."""
    apart = len({path.name for path in files}) == len(files)
    return [path.name if apart else str(path) for path in files]


@dataclass(frozen=True)
class _Wanted:
    """What is wanted of every model."""

    terminal: Terminal
    original: Reading
    job: JobOptions
    verify: bool
    engine: Engine
    layers: bool

    def subject(self, name: str, reading: Reading, path: Path | None) -> ReportedModel:
        """A model under this name; ``path`` is its file, if it is in one."""
        from onnxprune.report import subject

        times = None
        if self.layers:
            from onnxprune.report.timing import layer_times

            with self.terminal.step("Measuring layers"):
                source = path if path is not None else reading.model.to_proto().SerializeToString()
                times = layer_times(reading.analysis, source, self.engine)
        return subject(name, reading.model, reading.analysis, path, times)

    def times(self, original: Path, made: Sequence[ModelLike]) -> Bench | str:
        """All models in turns, as 'bench' measures them, or why not."""
        from onnxprune.cli.timing import beside

        shapes = self.original.analysis.shapes.binding
        return beside(self.terminal, original, *made, shapes=shapes, engine=self.engine)

    def from_file(
        self, original: ReportedModel, name: str, path: Path, plan: Plan | None
    ) -> tuple[Candidate, ModelLike]:
        """A pruned model, certified if there is a plan, and what runs it."""
        from onnxprune.ir.extents import fitted
        from onnxprune.ir.model import load
        from onnxprune.pruning.history import plan_of

        shapes = fitted(load(path), self.original.analysis.shapes.binding)
        result = read_and_analyze(self.terminal, path, None, otherwise=shapes)
        found = self.subject(name, result, path)
        return self._candidate(original, found, result, plan or plan_of(result.model)), path

    def from_plan(self, original: ReportedModel, name: str, plan: Plan) -> tuple[Candidate, ModelLike]:
        """What a plan would make of the model, and the model."""
        from onnxprune.analysis.analyzing import analyze
        from onnxprune.ir.extents import fitted
        from onnxprune.pruning.pipeline import apply

        with self.terminal.step("Removing channels"):
            model = apply(self.original.model, plan)
            result = Reading(model, analyze(model, fitted(model, self.original.analysis.shapes.binding)), None)
        return self._candidate(original, self.subject(name, result, None), result, plan), model

    def _candidate(
        self, original: ReportedModel, found: ReportedModel, result: Reading, plan: Plan | None
    ) -> Candidate:
        from onnxprune.pruning.history import answers_told, job_of, promise_told, since_removal
        from onnxprune.report import candidate

        proof, remark = self._proven(result, plan)
        return replace(
            candidate(original, found, plan, proof, remark),
            fidelity=self._fidelity(result),
            answers=answers_told(result.model),
            promise=promise_told(result.model),
            steps=tuple(since_removal(result.model)),
            job=job_of(result.model),
        )

    def _proven(self, pruned: Reading, plan: Plan | None) -> tuple[Proof | None, str]:
        """What 'verify' finds, and what is to be said about that."""
        from onnxprune.pruning.proving import prove

        if plan is None:
            return None, "The file tells no plan, and none was given (--plan), so nothing was compared."
        if not self.verify:
            return None, "Not asked for."
        with self.terminal.step("Verifying"):
            try:
                proof = prove(self.original.model, pruned.model, plan, input_shapes=self.original.shapes)
            except VerificationError as error:
                return None, f"It could not be made: {error}."
        return proof, "" if proof.passed else _FAILED

    def _fidelity(self, pruned: Reading) -> Fidelity | None:
        """What is left of the answers, where there is data."""
        from onnxprune.pruning.history import since_removal
        from onnxprune.pruning.pipeline import calibrated

        data = calibrated(self.original.model, self.job)
        if data is None:
            return None
        from onnxprune.data.fidelity import measure_fidelity

        with self.terminal.step("Comparing"):
            seen = data.same and bool(since_removal(pruned.model))
            return measure_fidelity(self.original.model, pruned.model, data.held_out, seen=seen, task=self.job.task)


def _save_plots(content: Report, output: Path, kind: str) -> list[Path]:
    """The plots that there are data for, beside the page."""
    from onnxprune.report import figures

    made = {"complexity": figures.complexity(content.original.analysis)}
    if content.candidates:
        made["changes"] = figures.changes(content.candidates[0].comparison)
    if content.results is not None and content.results.done:
        made["tradeoff"] = figures.tradeoff(content.results)
    paths = []
    for name, figure in made.items():
        paths.append(output.with_name(f"{output.stem}-{name}.{kind}"))
        save_plot(figure, paths[-1])
    return paths


def _command(words: Sequence[str] | None = None) -> str:
    return shlex.join(["onnxprune", *(sys.argv[1:] if words is None else words)])
