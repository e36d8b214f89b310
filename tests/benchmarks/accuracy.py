"""How accurate pruned networks get when they are trained directly, beside the conventional pipeline.

    python -m tests.benchmarks.accuracy [--data FOLDER] [--networks vgg16,…] [--claims] [--report-only]

Every result is one row of docs/accuracy.csv, written as soon as it is there; what is there is not run again. The page
docs/accuracy.md and its plot are made of these rows, and of those of an earlier study in another table: times of the
two are not comparable.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

import onnxprune
from models.data import DEBIAN_FOLDER
from models.export_torch import TorchExport, export
from onnxprune.data import Data, read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.errors import BudgetError
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session, random_inputs
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.torch import Recipe, train
from tests.benchmarks.accuracy_networks import NETWORKS, build
from tests.benchmarks.rows import add_row

DOCS = Path(__file__).parents[2] / "docs"
ROWS = DOCS / "accuracy.csv"
EARLIER = DOCS / "accuracy_any_width.csv"
"""What was measured before counts were kept in whole blocks, with slower kernels, on another day."""
IMAGES = 60_000
SCALING = "?mean=0.286&std=0.353"
MODES = ("params", "flops", "memory")
METHODS = ("complexity", "complexity-mean", "uniform")
RATES = {"mobilenetv2": 2e-2, "vgg16": 5e-3, "resnet20": 1e-2}
"""Of the MobileNetV2-like network the best of .005 to .04 for the *unpruned* one, on training images held out."""
EPOCHS = 1
SEEDS = 3
"""Of the networks ``SEEDED``; the others are run once."""
SEEDED = ("mobilenetv2", "vgg16")
_RUNS, _WARM_UP = 1000, 100


@dataclass(frozen=True)
class Case:
    """One training: which network, pruned how, to which budget, with which seed."""

    network: str
    method: str
    mode: str = ""
    reduce: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """What was measured: accuracy (0 to 1), costs of the trained model, and times.

    ``latency`` is processor time of one run in onnxruntime (seconds, one thread, batch 1), ``seconds`` processor time
    of all training that the method needs, ``images`` how many images it was shown. ``note`` says why there are none.
    """

    case: Case
    accuracy: float = float("nan")
    loss: float = float("nan")
    params: float = float("nan")
    flops: float = float("nan")
    memory: float = float("nan")
    latency: float = float("nan")
    seconds: float = float("nan")
    images: int = 0
    note: str = ""


def cases(networks: list[str]) -> list[Case]:
    """All trainings, the most telling first: a study that is cut short has them."""
    asked = (ask(network) for ask in (_first, _further, _repeated) for network in networks)
    return list(dict.fromkeys(case for some in ((claimed(networks),), asked) for part in some for case in part))


def claimed(networks: list[str]) -> list[Case]:
    """The trainings that the paper's claims are held against, with all seeds."""
    asked = (("params", 0.7), ("flops", 0.5), ("memory", 0.5))
    return [
        case
        for network in networks
        for seed in range(SEEDS)
        for case in (
            Case(network, "unpruned", seed=seed),
            Case(network, "conventional", "flops", 0.5, seed),
            *(Case(network, method, *budget, seed) for budget in asked for method in METHODS),
        )
    ]


def _first(network: str, seed: int = 0) -> Iterator[Case]:
    yield Case(network, "unpruned", seed=seed)
    for reduce in (0.5, 0.7):
        yield from _pruned_to(network, reduce, seed)
    if seed == 0:
        yield Case(network, "uniform", "params", 0.7)
        yield Case(network, "uniform", "memory", 0.5)
        yield Case(network, "folded")
        yield Case(network, "folded, BatchNorm restored")


def _further(network: str, seed: int = 0) -> Iterator[Case]:
    for reduce in (0.3, 0.85):
        yield from _pruned_to(network, reduce, seed)


def _repeated(network: str) -> Iterator[Case]:
    seeds = range(1, SEEDS) if network in SEEDED else ()
    for ask in (_first, _further):
        for seed in seeds:
            yield from ask(network, seed)


def _pruned_to(network: str, reduce: float, seed: int) -> Iterator[Case]:
    for mode in MODES:
        yield Case(network, "complexity", mode, reduce, seed)
    yield Case(network, "uniform", "flops", reduce, seed)
    yield Case(network, "conventional", "flops", reduce, seed)


class Study:
    """Trains what is not in the table yet."""

    def __init__(self, data: str, work: Path) -> None:
        self._spec, self._work = f"{data}{SCALING}", work
        self._rows = {row.case: row for row in read_rows()}
        self._data: Data | None = None
        self._is_warm = False

    def run(self, case: Case) -> None:
        """One row, unless it is there."""
        if case in self._rows:
            return
        try:
            row = self._conventional(case) if case.method == "conventional" else self._direct(case)
        except BudgetError as error:
            row = Row(case, note=str(error).split(";")[0])
        self._rows[case] = row
        append_row(row)
        print(row, flush=True)

    def _direct(self, case: Case) -> Row:
        """Prune at initialisation, then train."""
        self._warm(case.network)
        folded = case.method.startswith("folded")
        start = self.exported(case, keep_batch_norm=not folded)
        model = start if not case.mode else pruned(start, case, "random")
        recipe = Recipe(
            epochs=EPOCHS,
            lr=RATES[case.network],
            start="from-scratch",
            seed=case.seed,
            restore_batchnorm=case.method == "folded, BatchNorm restored",
        )
        trained, seconds = self._train(model, recipe)
        if case.method == "unpruned":
            trained.save(self._trained(case))
        return self._measured(case, trained, seconds, EPOCHS)

    def _conventional(self, case: Case) -> Row:
        """Train, remove the filters of the smallest l2 norm, fine-tune with a third of the rate."""
        self._warm(case.network)
        whole = Case(case.network, "unpruned", seed=case.seed)
        model = pruned(onnxprune.load(self._trained(whole)), case, "l2")
        recipe = Recipe(epochs=EPOCHS, lr=RATES[case.network] / 3, seed=case.seed)
        trained, seconds = self._train(model, recipe)
        return self._measured(case, trained, self._rows[whole].seconds + seconds, 2 * EPOCHS)

    def exported(self, case: Case, *, keep_batch_norm: bool) -> Model:
        """A network with fresh weights as a file."""
        file = self._work / f"{case.network}-{case.seed}-{'bn' if keep_batch_norm else 'folded'}.onnx"
        if not file.exists():
            how = TorchExport("torchscript", 17, keep_batch_norm=keep_batch_norm)
            export(build(case.network, case.seed).eval(), how, file)
        return onnxprune.load(file)

    def _trained(self, case: Case) -> Path:
        return self._work / f"{case.network}-{case.seed}-trained.onnx"

    def _warm(self, network: str) -> None:
        """One training that does not count: what the first one in a process loads is not its own."""
        if not self._is_warm:
            self._is_warm = True
            model = self.exported(Case(network, "unpruned"), keep_batch_norm=True)
            few = self.samples(model, limit=1000)
            train(model, Data(few.train, None, few.classes, few.digest), Recipe(epochs=1), device="cpu")

    def samples(self, model: Model, limit: int) -> Data:
        """The first so many."""
        return read_data(f"{self._spec}&limit={limit}", model)

    def _samples(self, model: Model) -> Data:
        if self._data is None:
            self._data = read_data(self._spec, model)
        return self._data

    def _train(self, model: Model, recipe: Recipe) -> tuple[Model, float]:
        data = self._samples(model)
        begin = time.process_time()
        trained = train(model, Data(data.train, None, data.classes, data.digest), recipe, device="cpu").model
        return trained, time.process_time() - begin

    def _measured(self, case: Case, model: Model, seconds: float, epochs: int) -> Row:
        data = self._samples(model)
        assert data.test is not None
        final = FoldBatchnorm()(model).model
        score = evaluate(final, data.test, threads=1)
        totals = onnxprune.analyze(final).totals
        return Row(
            case, score.accuracy or 0.0, score.loss, totals["params"], totals["flops"], totals["memory"],
            latency(final), seconds, epochs * len(data.train),
        )  # fmt: skip


def pruned(model: Model, case: Case, criterion: str) -> Model:
    """A model less what a case removes."""
    allocation = case.method if case.method in METHODS else "uniform"
    return onnxprune.compress(
        model, mode=case.mode, reduce=case.reduce, allocation=allocation, criterion=criterion, seed=case.seed
    ).model


def latency(model: Model) -> float:
    """The least processor time of one run, batch 1, in seconds: other load on the machine matters least for it."""
    session = Session(model, "the model", threads=1)
    inputs = random_inputs(model, {model.graph.input[0].name: (1, 1, 28, 28)}, 0)
    times = []
    for _ in range(_WARM_UP + _RUNS):
        begin = time.thread_time_ns()
        session.run(inputs)
        times.append(time.thread_time_ns() - begin)
    return min(times[_WARM_UP:]) * 1e-9


def read_rows(table: Path = ROWS) -> list[Row]:
    """The rows of a table so far."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return [_row(entry) for entry in csv.DictReader(file)]


def _row(entry: dict[str, str]) -> Row:
    case = Case(entry["network"], entry["method"], entry["mode"], float(entry["reduce"]), int(entry["seed"]))
    numbers: dict[str, Any] = {
        f.name: float(entry[f.name]) for f in fields(Row) if f.name not in ("case", "images", "note")
    }
    return Row(case, images=int(entry["images"]), note=entry["note"], **numbers)


def append_row(row: Row) -> None:
    """Add a row to the table."""
    flat = asdict(row)
    entry = {**flat.pop("case"), **flat}
    add_row(ROWS, {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in entry.items()})


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DEBIAN_FOLDER), help="folder of Fashion-MNIST")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "onnxprune-accuracy")
    parser.add_argument("--claims", action="store_true", help="only what the paper's claims are about")
    parser.add_argument("--report-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report_only:
        torch.set_num_threads(1)
        arguments.work.mkdir(exist_ok=True)
        study = Study(arguments.data, arguments.work)
        networks = arguments.networks.split(",")
        for case in (claimed if arguments.claims else cases)(networks):
            study.run(case)
    from tests.benchmarks.accuracy_report import write

    write(read_rows(), read_rows(EARLIER), DOCS)


if __name__ == "__main__":
    main()
