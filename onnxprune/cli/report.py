"""``onnxprune report``: one HTML page about a model and its pruned forms."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.files import check_output, save_text
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, OutputOption
from onnxprune.cli.reading import Reading, read_and_analyze
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import long
from onnxprune.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from onnxprune.certificate import Certificate
    from onnxprune.exploration import Results
    from onnxprune.model import Model
    from onnxprune.plans import Plan
    from onnxprune.report import Candidate, Subject


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
    no_verify: Annotated[bool, typer.Option("--no-verify", help="No certificates.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page about a model: what was removed where, what is coupled, what was proven.

    It needs nothing from the network, on any screen.
    """
    terminal = Terminal(as_json)
    files, plans = pruned or [], plan or []
    if files and plans and len(files) != len(plans):
        raise UsageError(
            f"{len(plans)} plans are given for {len(files)} pruned models; give one --plan for each, in their order"
        )
    check_output(output, (model, *files, *plans, *([] if results is None else [results])))
    from onnxprune.plans import Plan
    from onnxprune.report import Report, subject
    from onnxprune.report.page import render

    runs = None if results is None else _recorded(results)
    chosen = [Plan.load(path) for path in plans]
    split = chosen[0].split if chosen else "finest"
    reading = read_and_analyze(terminal, model, input_shape, split, chosen[0].input_shapes if chosen else None)
    if runs is not None:
        _check_same(reading.model, model, runs)
    original = subject(model.name, reading.model, reading.analysis, model)
    if files:
        of_each: Sequence[Plan | None] = chosen or [None] * len(files)
        pairs = zip(files, of_each, strict=True)
        candidates = [_from_file(terminal, reading, original, path, its, not no_verify) for path, its in pairs]
    else:
        candidates = [
            _from_plan(terminal, reading, original, path.stem, its, not no_verify)
            for path, its in zip(plans, chosen, strict=True)
        ]
    with terminal.step("Drawing"):
        page = render(Report(original, tuple(candidates), runs, _command()))
    save_text(page, output)
    size = len(page.encode())
    terminal.json({"output": str(output), "bytes": size, "candidates": [c.subject.name for c in candidates]})
    terminal.show(f"Wrote {output} ({long(size, 'B')}): open it in a browser.")


def _recorded(path: Path) -> Results:
    from onnxprune.exploration import read_results

    return read_results(path)


def _check_same(model: Model, path: Path, results: Results) -> None:
    """Raise ResultsError where the runs are those of another model."""
    from onnxprune.errors import ResultsError
    from onnxprune.exploration.subject import model_digest

    if model_digest(model) != results.about.model_digest:
        raise ResultsError(
            f"{results.path} holds runs of another model ({results.about.model}), not of {path}; give that model, or "
            "the results of this one"
        )


def _from_file(
    terminal: Terminal, reading: Reading, original: Subject, path: Path, plan: Plan | None, certify: bool
) -> Candidate:
    from onnxprune.report import candidate, subject

    given = [f"{name}={','.join(map(str, shape))}" for name, shape in reading.analysis.shapes.binding.items()]
    result = read_and_analyze(terminal, path, given)
    found = subject(path.name, result.model, result.analysis, path)
    if plan is None:
        return candidate(original, found, remark="No plan was given (--plan), so nothing was compared.")
    certificate, remark = _certified(terminal, reading, result, plan) if certify else (None, "Not asked for.")
    return candidate(original, found, plan, certificate, remark)


def _from_plan(
    terminal: Terminal, reading: Reading, original: Subject, name: str, plan: Plan, certify: bool
) -> Candidate:
    from onnxprune.analysis import analyze
    from onnxprune.compression import apply
    from onnxprune.report import candidate, subject

    with terminal.step("Removing channels"):
        model = apply(reading.model, plan)
        result = Reading(model, analyze(model, dict(reading.analysis.shapes.binding)), None)
    certificate, remark = _certified(terminal, reading, result, plan) if certify else (None, "Not asked for.")
    return candidate(original, subject(name, model, result.analysis), plan, certificate, remark)


def _certified(terminal: Terminal, reading: Reading, pruned: Reading, plan: Plan) -> tuple[Certificate | None, str]:
    """The certificate, and what is to be said about it."""
    from onnxprune.certificate import verify

    with terminal.step("Verifying"):
        try:
            certificate = verify(reading.model, pruned.model, plan, input_shapes=reading.shapes)
        except VerificationError as error:
            return None, f"It could not be made: {error}."
    if certificate.passed:
        return certificate, ""
    return certificate, (
        "The outputs differ from those of the masked original. That is so for every model whose weights changed "
        "after pruning (by training or compensation); otherwise the file does not belong to the plan."
    )


def _command(words: Sequence[str] | None = None) -> str:
    return shlex.join(["onnxprune", *(sys.argv[1:] if words is None else words)])
