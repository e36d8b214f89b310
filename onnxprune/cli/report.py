"""``onnxprune report``: one HTML page about a model and its pruned forms."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long
from onnxprune.cli.files import Paths, save_plot, save_text
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, OutputOption
from onnxprune.cli.reading import Reading, read_and_analyze
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from onnxprune.exploration import Results
    from onnxprune.ir.model import Model
    from onnxprune.pruning.certificate import Certificate
    from onnxprune.pruning.plan import Plan
    from onnxprune.report import Candidate, Report, ReportedModel

_CHANGED = (
    "The weights of this file changed after the removal, by training or compensation: the certificate is about the "
    "removal alone, and says nothing of what changed since."
)
_FAILED = (
    "The file is not what the plan makes of the model, with the original's values for its weights either: see whether "
    "it belongs to the plan."
)
_PLOTS = ("complexity", "changes", "tradeoff")


def report(
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
    input_shape: InputShapeOption = None,
    time: Annotated[
        bool, typer.Option("--time", help="Measure the time of every layer in onnxruntime, on one thread.")
    ] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="No certificates.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Write static plots beside the page, too, as PNG.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="The same as SVG.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about a model: what was removed where, what is coupled, what was proven.

    It needs nothing from the network, on any screen.
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
    paths.write(output, *plots)
    from onnxprune.pruning.plan import Plan
    from onnxprune.report import Report
    from onnxprune.report.page import render

    runs = None if results is None else _recorded(results)
    chosen = [Plan.load(path) for path in plans]
    first = chosen[0] if chosen else Plan({})
    reading = read_and_analyze(terminal, model, input_shape, first.split, first.input_shapes, first.state)
    if runs is not None:
        _check_same(reading.model, model, runs)
    job = _Job(terminal, reading, verify=not no_verify, time=time)
    original = job.subject(model.name, reading, model)
    if files:
        of_each: Sequence[Plan | None] = chosen or [None] * len(files)
        pairs = zip(_names(files), files, of_each, strict=True)
        candidates = [job.from_file(original, name, path, its) for name, path, its in pairs]
    else:
        candidates = [job.from_plan(original, path.stem, its) for path, its in zip(plans, chosen, strict=True)]
    content = Report(original, tuple(candidates), runs, _command())
    with terminal.step("Drawing"):
        page = render(content)
    save_text(page, output)
    drawn = [path for kind in kinds for path in _save_plots(content, output, kind)]
    size = len(page.encode())
    names = [c.subject.name for c in candidates]
    terminal.json({"output": str(output), "bytes": size, "candidates": names, "plots": [str(path) for path in drawn]})
    also = f", and {', '.join(path.name for path in drawn)}" if drawn else ""
    terminal.show(f"Wrote {output} ({long(size, 'B')}): open it in a browser{also}.")


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
class _Job:
    """What is wanted of every model."""

    terminal: Terminal
    original: Reading
    verify: bool
    time: bool

    def subject(self, name: str, reading: Reading, path: Path | None) -> ReportedModel:
        """A model under this name; ``path`` is its file, if it is in one."""
        from onnxprune.report import subject

        times = None
        if self.time:
            from onnxprune.report.timing import layer_times

            with self.terminal.step("Measuring"):
                source = path if path is not None else reading.model.to_proto().SerializeToString()
                times = layer_times(reading.analysis, source)
        return subject(name, reading.model, reading.analysis, path, times)

    def from_file(self, original: ReportedModel, name: str, path: Path, plan: Plan | None) -> Candidate:
        """A pruned model, certified if there is a plan."""
        from onnxprune.ir.extents import fitted
        from onnxprune.ir.model import load
        from onnxprune.pruning.history import job_of, plan_of
        from onnxprune.report import candidate

        shapes = fitted(load(path), self.original.analysis.shapes.binding)
        result = read_and_analyze(self.terminal, path, None, otherwise=shapes)
        found = self.subject(name, result, path)
        plan = plan or plan_of(result.model)
        if plan is None:
            told = "The file tells no plan, and none was given (--plan), so nothing was compared."
            return candidate(original, found, remark=told)
        return candidate(original, found, plan, *self._certified(result, plan), job=job_of(result.model))

    def from_plan(self, original: ReportedModel, name: str, plan: Plan) -> Candidate:
        """What a plan would make of the model."""
        from onnxprune.analysis.analyzing import analyze
        from onnxprune.ir.extents import fitted
        from onnxprune.pruning.pipeline import apply
        from onnxprune.report import candidate

        with self.terminal.step("Removing channels"):
            model = apply(self.original.model, plan)
            result = Reading(model, analyze(model, fitted(model, self.original.analysis.shapes.binding)), None)
        return candidate(original, self.subject(name, result, None), plan, *self._certified(result, plan))

    def _certified(self, pruned: Reading, plan: Plan | None) -> tuple[Certificate | None, str]:
        """The certificate of the removal, and what is to be said about it."""
        from onnxprune.pruning.proving import prove

        if not self.verify:
            return None, "Not asked for."
        with self.terminal.step("Verifying"):
            try:
                proof = prove(self.original.model, pruned.model, plan, input_shapes=self.original.shapes)
            except VerificationError as error:
                return None, f"It could not be made: {error}."
        if not proof.certificate.passed:
            return proof.certificate, _FAILED
        return proof.certificate, " ".join([_CHANGED, *proof.sentences[1:]]) if proof.changed else ""


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
