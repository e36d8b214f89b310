"""Accuracy right after pruning, without any training: criteria, allocations and compensation, beside peers.

Trained networks (see ``accuracy_networks.py``) on Fashion-MNIST lose 20 to 70 % of their multiply-accumulates;
accuracy is that of test images. Calibration looks at training images without labels. Each row is written at once to
``docs/retention.csv``, and what is there is not run again; ``docs/retention.md`` is the page.

    python -m tests.benchmarks.retention --networks FOLDER [--only resnet20] [--report]

FOLDER holds NAME.onnx with BatchNormalization kept, from ``python -m tests.benchmarks.accuracy --work FOLDER``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from models.data import DEBIAN_FOLDER, Split, load_split
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples, collect
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.criteria import Criterion, Scoring, criterion
from tests.benchmarks.rows import add_row

from .environments import ONNXSIM, TORCH_PRUNING, interpreter, one_thread

ROWS = Path("docs/retention.csv")
NETWORKS = ("resnet20", "mobilenetv2", "vgg16")
BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SOME = (0.5, 0.3, 0.7)
CRITERIA = ("random", "l1", "fpgm", "lamp", "bn_scale", "activation", "variance", "relief", "reconstruction", "taylor")
ALLOCATIONS = ("uniform", "global", "complexity-mean")
ONNXSIM_METHODS = ("l2", "wanda", "wanda refit")
TORCH_PRUNING_METHODS = ("l2", "bn_scale global", "taylor global")
CALIBRATION = 256
TEST = 5000
MEAN, STD = 0.286, 0.353
WORKER = Path(__file__).with_name("retention_peers.py")


@dataclass(frozen=True)
class Case:
    """What is run: network, tool, criterion, allocation, compensation, and the share of MACs to remove."""

    network: str
    tool: str
    criterion: str
    allocation: str
    compensation: str
    reduce: float


@dataclass(frozen=True)
class Row:
    """What came out: the share of MACs removed, and accuracies of the original and the pruned network (0..1)."""

    case: Case
    removed: float
    base: float
    accuracy: float
    note: str = ""


def cases(networks: tuple[str, ...]) -> Iterator[Case]:
    """All cases, the most telling first."""
    for reduce in BUDGETS:
        for network in networks:
            for compensation in ("none", "refit"):
                yield Case(network, "onnxprune", "l2", "uniform", compensation, reduce)
                yield Case(network, "onnxprune", "refit", "global", compensation, reduce)
            for method in ONNXSIM_METHODS:
                yield Case(network, "onnxsim", method, "", "", reduce)
    for reduce in SOME:
        for network in networks:
            for method in TORCH_PRUNING_METHODS:
                yield Case(network, "Torch-Pruning", method, "", "", reduce)
        for network in networks:
            for name in ("refit", "l2", *CRITERIA):
                for allocation in ALLOCATIONS:
                    if allocation == "complexity-mean" and name not in ("l2", "refit"):
                        continue
                    for compensation in ("refit", "none"):
                        yield Case(network, "onnxprune", name, allocation, compensation, reduce)
        for network in networks:
            yield Case(network, "onnxprune", "refit", "global", "bias", reduce)


class Remembered:
    """A criterion whose scores are computed once."""

    def __init__(self, inner: Criterion) -> None:
        self.name, self.comparable, self._inner = inner.name, inner.comparable, inner
        self._scores: NDArray[np.float64] | None = None

    def scores(self, scoring: Scoring) -> NDArray[np.float64]:
        if self._scores is None:
            self._scores = self._inner.scores(scoring)
        return self._scores


class Study:
    """One network at a time: model, samples, accuracy before."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder, self._work = folder, work
        test, train = load_split("t10k"), load_split("train")
        self._images, self._labels = _scaled(test, slice(0, TEST)), test.labels[:TEST].astype(np.int64)
        chosen = np.random.default_rng(0).permutation(len(train.images))[:CALIBRATION]
        self._calibration, self._targets = _scaled(train, chosen), train.labels[chosen].astype(np.int64)
        # Each is asked for many times.
        self.model, self.samples, self.base = cache(self._model), cache(self._samples), cache(self._base)
        self._remembered = cache(lambda network, name: Remembered(criterion(name)))

    def _model(self, network: str) -> onnxprune.Model:
        """The trained network."""
        for name in (f"{network}_bn.onnx", f"{network}.onnx"):
            if (self._folder / name).exists():
                return onnxprune.load(self._folder / name)
        raise FileNotFoundError(f"{self._folder} has no {network}.onnx: train it with tests.benchmarks.accuracy")

    def _samples(self, network: str) -> Samples:
        """Calibration samples without labels."""
        model = self.model(network)
        return collect({_input(model): self._calibration}, model, CALIBRATION, step=64)

    def _base(self, network: str) -> float:
        """Accuracy of the trained network."""
        return self.accuracy(self.model(network))

    def accuracy(self, model: onnxprune.Model) -> float:
        """The share of right answers on the test images."""
        found = outputs_of(model, Samples({_input(model): self._images}, None, 250), "the model")
        scores = next(iter(found.values()))
        return float((scores.argmax(axis=1) == self._labels).mean())

    def run(self, case: Case) -> Row:
        """One case."""
        base = self.base(case.network)
        try:
            model, removed = self._own(case) if case.tool == "onnxprune" else self._peer(case)
        except (onnxprune.OnnxPruneError, RuntimeError) as error:
            return Row(case, 0.0, base, float("nan"), str(error)[:120])
        return Row(case, removed, base, self.accuracy(model))

    def _own(self, case: Case) -> tuple[onnxprune.Model, float]:
        model = self.model(case.network)
        plan = onnxprune.plan(
            onnxprune.analyze(model),
            reduce=case.reduce,
            allocation=case.allocation,
            criterion=self._remembered(case.network, case.criterion),
            calibration=self.samples(case.network),
        )
        pruned = onnxprune.apply(model, plan)
        if case.compensation != "none":
            pruned = compensate(pruned, model, plan, self.samples(case.network), method=case.compensation).model
        return pruned, 1 - plan.after["flops"] / plan.before["flops"]

    def _peer(self, case: Case) -> tuple[onnxprune.Model, float]:
        model = self.model(case.network)
        files = {name: str(self._work / f"{case.network}.{name}") for name in ("onnx", "npz", "samples.npz")}
        # onnxsim does not see through BatchNormalization: it gets it folded.
        FoldBatchnorm().run(model).model.save(files["onnx"])
        np.savez(files["npz"], **_state(model))
        np.savez(files["samples.npz"], x=self._calibration, y=self._targets)
        output = self._work / "pruned.onnx"
        request = {
            "tool": case.tool,
            "method": case.criterion,
            "network": case.network,
            "onnx": files["onnx"],
            "weights": files["npz"],
            "samples": files["samples.npz"],
            "reduce": case.reduce,
            "output": str(output),
        }
        asked = self._work / "request.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        environment = ONNXSIM if case.tool == "onnxsim" else TORCH_PRUNING
        done = subprocess.run(
            [interpreter(environment), str(WORKER), str(asked)], capture_output=True, text=True, env=one_thread()
        )
        lines = done.stdout.strip().splitlines()
        answer: dict[str, Any] = json.loads(lines[-1]) if lines else {"error": done.stderr.strip()[-120:]}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        pruned = onnxprune.load(onnxprune.load(output).to_proto())
        full, left = (onnxprune.analyze(m).totals["flops"] for m in (model, pruned))
        return pruned, 1 - left / full


def _scaled(split: Split, chosen: Any) -> NDArray[np.float32]:
    return ((split.images[chosen][:, None] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)).astype(np.float32)


def _state(model: onnxprune.Model) -> dict[str, NDArray[Any]]:
    """Weights by the names of PyTorch's modules. Exporters share vectors, so a BatchNormalization is named after the
    convolution before it: both lie in one Sequential."""
    state = {name: weight.array for name, weight in model.weights.items()}
    makers = {node.output[0]: node for node in model.graph.node}
    for node in onnxprune.normalize(model).graph.node:
        if node.op_type == "BatchNormalization":
            module = makers[node.input[0]].input[1].removesuffix("0.weight")
            for place, name in enumerate(("weight", "bias", "running_mean", "running_var"), start=1):
                state[f"{module}1.{name}"] = onnxprune.normalize(model).weights[node.input[place]].array
    return state


def _input(model: onnxprune.Model) -> str:
    return next(value.name for value in model.graph.input if value.name not in model.weights)


def read_rows() -> list[Row]:
    """The rows that are there."""
    if not ROWS.exists():
        return []
    names = [field.name for field in fields(Case)]
    with ROWS.open(encoding="utf-8", newline="") as file:
        found = []
        for entry in csv.DictReader(file):
            case = Case(*[float(entry[name]) if name == "reduce" else entry[name] for name in names])  # type: ignore[arg-type]
            found.append(
                Row(case, float(entry["removed"]), float(entry["base"]), float(entry["accuracy"]), entry["note"])
            )
    return found


def write_row(row: Row) -> None:
    """Add a row to the table."""
    flat = asdict(row)
    entry = {**flat.pop("case"), **{k: f"{v:.5g}" if isinstance(v, float) else v for k, v in flat.items()}}
    add_row(ROWS, entry)


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, default=Path(tempfile.gettempdir()) / "onnxprune-accuracy")
    parser.add_argument("--only", default=",".join(NETWORKS), help="networks, with commas")
    parser.add_argument("--report", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {row.case for row in read_rows()}
        if not DEBIAN_FOLDER.exists():
            raise SystemExit("install Debian's package dataset-fashion-mnist")
        with tempfile.TemporaryDirectory() as work:
            study = Study(arguments.networks, Path(work))
            for case in cases(tuple(arguments.only.split(","))):
                if case not in done:
                    done.add(case)
                    row = study.run(case)
                    write_row(row)
                    print(row, flush=True)
    from .retention_page import write

    write(read_rows())


if __name__ == "__main__":
    main()
