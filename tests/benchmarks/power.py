"""What a certificate catches: faults put into pruned models, and who notices them.

    python -m tests.benchmarks.power --folder DIR --mutations 50 --out docs/power.md

For every .onnx file below DIR, half of all channels go, faults are drawn (see ``mutations``), and each is asked of the
graph's outputs alone (they differ from the masked original's by more than 1e-4 of the largest) and of the certificate.
What passes goes to an oracle that knows neither masks nor plans: the pruned model beside itself with the fault, every
tensor compared, under several laws of inputs; where none moves, the node that reads the faulty constant, alone, under
inputs fed to it directly. A fault that moves nothing at all is *equivalent*, and no fault of the certificate's.

Figures go to a CSV file beside the table; models that are there are not measured again, so an interrupted run just
starts again. A model has a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.ir.session import Session, random_inputs
from onnxprune.pruning.certificate.rehearsal import Rehearsal
from onnxprune.pruning.certificate.verifying import certifier_of, usual_inputs
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.masking import masked
from onnxprune.pruning.mutations import Mutation, mutations

from .power_oracle import Oracle, Verdict
from .power_page import Row, page

SHARE = 0.5
OUTPUTS_TOLERANCE = 1e-4
_LISTED = 40


# ---------------------------------------------------------------- one model


@dataclass(frozen=True)
class Subject:
    """A model with half of its channels gone, and everything that a judge wants to know."""

    model: onnxprune.Model
    analysis: onnxprune.Analysis
    plan: onnxprune.Plan
    pruned: onnxprune.Model


Judge = Callable[[onnxprune.Model], bool]
"""Whether a file is noticed to be wrong; VerificationError where it does not even run."""


def by_outputs(subject: Subject) -> Judge:
    """What comparing the graph's outputs catches."""
    analysis = subject.analysis
    inputs = random_inputs(analysis.model, analysis.shapes.binding, 0)
    reference = masked(analysis, removed_per_class(analysis, subject.plan))
    expected = Session(reference, "the masked original", threads=1).run(inputs)

    def judge(mutated: onnxprune.Model) -> bool:
        got = Session(mutated, "the faulty model", threads=1).run(inputs)
        return any(not _share(expected[name], got[name]) <= OUTPUTS_TOLERANCE for name in expected)

    return judge


def _share(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest difference as a share of the largest magnitude; infinite where shapes or types differ."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return float("inf")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b)).max(initial=0.0)
    return float(gap / (np.abs(a[np.isfinite(a)]).max(initial=0.0) or 1.0))


class Certifying:
    """What the certificate catches: by the tensors that it compares, or by the weights alone."""

    def __init__(self, subject: Subject) -> None:
        certificate = onnxprune.verify(subject.model, subject.pruned, subject.plan)
        self.refuses = certificate.sentences[0] if not certificate.complete else ""
        certifier = certifier_of(subject.analysis, subject.plan)
        self._rehearsal = Rehearsal(certifier, subject.pruned, usual_inputs(subject.analysis))

    def by_tensors(self, mutated: onnxprune.Model) -> bool:
        """Whether a compared tensor differs."""
        return bool(self._rehearsal.differing(mutated))

    def by_weights(self, mutated: onnxprune.Model) -> bool:
        """Whether a weight is not the original's."""
        return bool(self._rehearsal.changed_weights(mutated))


def measure(path: Path, count: int, seed: int, shapes: Mapping[str, tuple[int, ...]] | None) -> Row:
    """Prune one model, put faults into it one by one, and count who notices."""
    start = time.perf_counter()
    row = Row(path.parent.name + "/" + path.stem)
    try:
        model = onnxprune.load(path)
        analysis = onnxprune.analyze(model, shapes)
        plan = onnxprune.plan(analysis, channels=SHARE)
        subject = Subject(model, analysis, plan, onnxprune.apply(model, plan))
        certificate = Certifying(subject)
        if certificate.refuses:
            return replace(row, error=certificate.refuses)
        outputs = by_outputs(subject)
        row = _count(row, subject, islice(mutations(subject.pruned, analysis, plan, seed), count), outputs, certificate)
    except Exception as error:  # any failure at all is a finding
        lines = str(error).strip().splitlines() or [""]
        row = replace(row, error=f"{type(error).__name__}: {lines[0][:200]}")
    return replace(row, seconds=time.perf_counter() - start)


def _count(row: Row, subject: Subject, drawn: Iterable[Mutation], outputs: Judge, certificate: Certifying) -> Row:
    oracle = Oracle(subject.pruned, subject.analysis)
    unnoticed: list[str] = []
    kinds: dict[str, list[int]] = {}
    for mutation in drawn:
        mutated = mutation.apply(subject.pruned)
        row = replace(row, drawn=row.drawn + 1)
        try:
            seen = outputs(mutated)
            by_tensors = certificate.by_tensors(mutated)
        except onnxprune.VerificationError:
            row = replace(row, refused=row.refused + 1)
            continue
        caught = by_tensors or certificate.by_weights(mutated)
        verdict = Verdict.MOVES if caught or seen else oracle.verdict(mutation, mutated)
        if verdict is Verdict.EQUIVALENT:
            row = replace(row, equivalent=row.equivalent + 1)
            continue
        counts = kinds.setdefault(mutation.kind.value, [0, 0, 0, 0])
        for place, happened in enumerate((True, seen, by_tensors, caught)):
            counts[place] += happened
        row = replace(
            row,
            faults=row.faults + 1,
            by_outputs=row.by_outputs + seen,
            by_tensors=row.by_tensors + by_tensors,
            by_certificate=row.by_certificate + caught,
            hidden=row.hidden + (verdict is Verdict.HIDDEN and not caught),
        )
        if not caught:
            unnoticed.append(f"{mutation} [{verdict.value}]")
    return replace(row, unnoticed="; ".join(unnoticed[:_LISTED]), kinds=json.dumps(kinds))


# ---------------------------------------------------------------- many models


def main() -> int:
    """Measure what has not been measured, and write the table."""
    options = _parse()
    if options.one:
        print(json.dumps(asdict(measure(options.one, options.mutations, options.seed, _shapes(options.one)))))
        return 0
    figures = options.out.with_suffix(".csv")
    rows = {row.model: row for row in read(figures)} if figures.exists() else {}
    for path in [] if options.table_only else sorted(options.folder.glob("**/*.onnx"), key=lambda p: p.stat().st_size):
        name = path.parent.name + "/" + path.stem
        if (name in rows and not (options.again and rows[name].error)) or path.stat().st_size > options.largest:
            continue
        rows[name] = _in_process(path, name, options)
        write(figures, rows.values())
        options.out.write_text(page(list(rows.values())))
        row = rows[name]
        print(name, row.error or f"{row.by_outputs} and {row.by_certificate} of {row.faults}", flush=True)
    options.out.write_text(page(list(rows.values())))
    return 1 if any(row.error or row.by_certificate < row.faults for row in rows.values()) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("models"), help="folder with ONNX files, at any depth")
    parser.add_argument("--out", type=Path, default=Path("docs/power.md"), help="the table; figures go to .csv")
    parser.add_argument("--mutations", type=int, default=50, help="faults per model")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per model")
    parser.add_argument("--largest", type=float, default=300e6, help="bytes; larger files are left out")
    parser.add_argument("--again", action="store_true", help="measure those anew that failed")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    parser.add_argument("--one", type=Path, help="measure this file here, print its figures")
    return parser.parse_args()


def _shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    """The shapes that the manifest of the folder above names for the file's inputs, if it does."""
    manifest = path.parent.parent / "manifest.json"
    entries = json.loads(manifest.read_text()) if manifest.exists() else []
    for entry in entries:
        if entry["file"] == f"{path.parent.name}/{path.name}" and entry.get("shapes"):
            return {name: tuple(shape) for name, shape in entry["shapes"].items()}
    return None


def _in_process(path: Path, name: str, options: argparse.Namespace) -> Row:
    command = [sys.executable, "-m", "tests.benchmarks.power", "--one", str(path)]
    command += ["--mutations", str(options.mutations), "--seed", str(options.seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, env=environment)
    except subprocess.TimeoutExpired:
        return Row(name, error=f"no result within {options.timeout:.0f} s")
    if result.returncode != 0:
        return Row(name, error=f"the process ended with {result.returncode}: {result.stderr.strip()[-200:]}")
    return Row(**json.loads(result.stdout.splitlines()[-1]))


def read(path: Path) -> list[Row]:
    """The rows of a CSV file that `write` wrote."""
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="") as stream:
        return [Row(**{k: kinds[Row.__annotations__[k]](v) for k, v in row.items()}) for row in csv.DictReader(stream)]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the order of names."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [one.name for one in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: row.model):
            writer.writerow({**asdict(row), "seconds": f"{row.seconds:.1f}"})
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
