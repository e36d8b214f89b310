"""Latency mode on real networks: ``python -m tests.benchmarks.latency --work FOLDER NAME=FILE[@1,3,224,224] …``.

Every row is kept as a file in the folder, so that a study goes on where it stopped; the page ``docs/latency.md`` is
written anew after each. ``--fidelity FILE`` names a trained classifier of 224×224 images (ImageNet statistics) for
the comparison of modes at equal time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import OnnxPruneError
from onnxprune.ir.engine import Engine
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.fitting import meet_latency
from onnxprune.latency.machine import LocalMachine, processor
from onnxprune.latency.profile import inputs_of, profile_latency
from onnxprune.latency.statistics import paired_ratio
from onnxprune.pruning.plan import Plan

PAGE = Path(__file__).parents[2] / "docs" / "latency.md"

_HALF = 0.5
_ROUNDS = Rounds(seconds=4.0, least=12)
_HEAD = """# Latency

Written by `python -m tests.benchmarks.latency`; do not edit by hand. Models run in onnxruntime beside their original,
in turns; a time is the median of the paired ratios, with its 95 % interval. With one thread, times are those of the
thread on the processor (other work on the machine does not count); with two, those of the clock.
"""
_ASKED = """## Half the time

`--mode latency --reduce 0.5`, allocation `complexity`: the profile is measured (times of layers are
taken from the cache where a run before left them there), the plan corrected until the measured time is within 5 % of
the asked one. *First* is the measured over the asked time of the first plan, before any correction.

| model | threads | original | multiple | first | measured / asked | plans | MACs left | seconds |
|---|---|---|---|---|---|---|---|---|
"""
_MACS = """## Half the multiply-accumulates

`--mode flops --reduce 0.5`: time over the original's, with channel counts as they fall (1) and by default (auto:
multiples of what the processor computes together, which nothing is measured for).

| model | threads | multiple | complexity, 1 | complexity, auto | uniform, auto | global, auto |
|---|---|---|---|---|---|---|
"""
_FIDELITY = """## What is kept at half the time

MobileNetV2 with ImageNet weights, both plans brought to the same measured time (half the original's, one thread,
rounded to `auto`): layers chosen by latency, and by FLOPs. By the l2 norm, without fine-tuning; refitted on 64 crops of
photographs where it says so, compared with the original on 64 other crops. Mean over seeds where there are several.

| allocation | chosen by | seeds | time | MACs left | params left | compensation | cosine | KL | same top-1 |
|---|---|---|---|---|---|---|---|---|---|
"""

Row = dict[str, Any]


def time_row(path: Path, shape: tuple[int, ...] | None, threads: int) -> Row:
    """What latency mode and rounding do to one model."""
    analysis = _analyzed(path, shape)
    runtime = LocalMachine(Engine(threads))
    begin = time.perf_counter()
    profile = profile_latency(analysis, machine=runtime, rounds=_ROUNDS)
    row: Row = {"threads": threads, "baseline": profile.baseline.median, "multiple": profile.multiple}
    row["spread"] = profile.baseline.relative
    row["profile_seconds"] = time.perf_counter() - begin
    try:
        fit = meet_latency(analysis, profile, reduce=_HALF, machine=runtime, rounds=_ROUNDS, round_to=profile.multiple)
        row["fit"] = {
            "first": fit.trials[0].measured / fit.asked,
            "ratio": fit.best.measured / fit.asked,
            "uncertainty": fit.best.ratio.uncertainty,
            "trials": len(fit.trials),
            "macs": fit.plan.after["flops"] / fit.plan.before["flops"],
        }
    except OnnxPruneError as error:
        row["error"] = str(error)
    row["seconds"] = time.perf_counter() - begin
    variants = {
        "complexity 1": {"allocation": "complexity", "round_to": 1},
        "complexity auto": {"allocation": "complexity"},
        "uniform auto": {"allocation": "uniform"},
        "global auto": {"allocation": "global"},
    }
    row["macs"] = {}
    for name, options in variants.items():
        try:
            plan = onnxprune.plan(analysis, reduce=_HALF, **options)
        except OnnxPruneError as error:
            row["macs"][name] = str(error)
            continue
        row["macs"][name] = _ratio(runtime, analysis, plan)
    return row


def fidelity_rows(path: Path) -> list[Row]:
    """What is left of a trained classifier's outputs at half its time, by latency and by FLOPs."""
    from onnxprune.data.fidelity import measure_fidelity
    from onnxprune.data.samples import collect
    from onnxprune.pruning.compensation import compensate

    analysis = _analyzed(path, None)
    name = next(iter(analysis.shapes.binding))
    fit_on = collect({name: crops(64, 0)}, analysis.model)
    held_out = collect({name: crops(64, 1)}, analysis.model)
    runtime = LocalMachine()
    profile = profile_latency(analysis, machine=runtime, rounds=_ROUNDS)
    rows = []
    for allocation, seeds in (("complexity", (0, 1, 2)), ("global", (0,))):
        for mode in ("latency", "flops"):
            for seed in seeds:
                options = {"allocation": allocation, "round_to": profile.multiple, "seed": seed}
                asked = (1 - _HALF) * profile.baseline.median
                plan, ratio = _at_time(analysis, profile, mode, asked, runtime, options)
                pruned = onnxprune.apply(analysis.model, plan)
                for method in (None, "refit"):
                    done = pruned
                    if method is not None:
                        done = compensate(pruned, analysis.model, plan, fit_on, method=method).model
                    output = measure_fidelity(analysis.model, done, held_out).outputs[0]
                    rows.append(
                        {
                            "allocation": allocation, "mode": mode, "seed": seed, "ratio": ratio,
                            "macs": plan.after["flops"] / plan.before["flops"],
                            "params": plan.after["params"] / plan.before["params"], "method": method or "none",
                            "cosine": output.cosine, "kl": output.kl, "agreement": output.agreement,
                        }
                    )  # fmt: skip
    return rows


def crops(count: int, seed: int) -> NDArray[np.float32]:
    """Crops of scikit-learn's two photographs, 224×224, normalised as for ImageNet; (count, 3, 224, 224).

    Even seeds take them from the left halves of the pictures, odd ones from the right.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    pictures = load_sample_images().images
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found = []
    for at in range(count):
        picture = pictures[at % len(pictures)]
        half = picture.shape[1] // 2
        side = picture[:, :half] if seed % 2 == 0 else picture[:, half:]
        size = int(rng.integers(96, min(side.shape[:2])))
        top, left = (int(rng.integers(0, extent - size + 1)) for extent in side.shape[:2])
        crop = Image.fromarray(side[top : top + size, left : left + size]).resize((224, 224), Image.Resampling.BILINEAR)
        found.append(((np.asarray(crop) / 255 - mean) / deviation).transpose(2, 0, 1))
    return np.stack(found).astype(np.float32)


def _at_time(
    analysis: Analysis, profile: Any, mode: str, asked: float, runtime: LocalMachine, options: Row
) -> tuple[Plan, float]:
    """A plan of that mode whose measured time is the asked one. Flops: fewer and fewer MACs, until it is."""
    if mode == "latency":
        fit = meet_latency(analysis, profile, max_latency=asked, machine=runtime, rounds=_ROUNDS, **options)
        return fit.plan, fit.best.ratio.median
    low, high, best = 0.3, 0.8, None
    for _ in range(6):
        middle = (low + high) / 2
        plan = onnxprune.plan(analysis, mode="flops", reduce=middle, **options)
        ratio = _ratio(runtime, analysis, plan)[0]
        off = ratio * profile.baseline.median / asked
        if best is None or abs(off - 1) < abs(best[1] * profile.baseline.median / asked - 1):
            best = (plan, ratio)
        if abs(off - 1) <= 0.015:
            break
        low, high = (middle, high) if off > 1 else (low, middle)
    assert best is not None
    return best


def _ratio(runtime: LocalMachine, analysis: Analysis, plan: Plan) -> tuple[float, float, float]:
    pruned = onnxprune.apply(analysis.model, plan)
    seconds = runtime.rounds([analysis.model, pruned], inputs_of(analysis), _ROUNDS)
    found = paired_ratio(seconds[:, 1], seconds[:, 0])
    return found.median, found.low, found.high


def _analyzed(path: Path, shape: tuple[int, ...] | None) -> Analysis:
    model = onnxprune.load(path)
    if shape is None:
        return onnxprune.analyze(model)
    return onnxprune.analyze(model, {model.graph.input[0].name: shape})


def page(work: Path, note: str = "") -> str:
    """The page of all rows in a folder; ``note`` says under which circumstances they were measured."""
    rows = [json.loads(file.read_text()) for file in sorted(work.glob("time-*.json"))]
    text = _HEAD + "\n" + _ASKED + "".join(_asked_line(row) for row in rows)
    text += "\n" + _MACS + "".join(_macs_line(row) for row in rows)
    if (work / "fidelity.json").exists():
        text += "\n" + _FIDELITY + "".join(_fidelity_lines(json.loads((work / "fidelity.json").read_text())))
    setting = f"onnxruntime {version('onnxruntime')}, {processor()}. torchvision's networks have random weights."
    return f"{text}\n{setting}{' ' * bool(note)}{note}\n"


def _asked_line(row: Row) -> str:
    head = f"| {row['model']} | {row['threads']} | {1e3 * row['baseline']:.1f} ms | {row['multiple']} | "
    if "error" in row:
        return head + f"{row['error'].split(';')[0]} | | | | {row['seconds']:.0f} |\n"
    fit = row["fit"]
    return head + (
        f"{fit['first']:.3f} | {fit['ratio']:.3f} ± {fit['uncertainty']:.3f} | {fit['trials']} | {fit['macs']:.2f} | "
        f"{row['seconds']:.0f} |\n"
    )


def _macs_line(row: Row) -> str:
    cells = [
        f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})" if isinstance(found, (list, tuple)) else "not reached"
        for found in row["macs"].values()
    ]
    return f"| {row['model']} | {row['threads']} | {row['multiple']} | {' | '.join(cells)} |\n"


def _fidelity_lines(rows: Sequence[Row]) -> list[str]:
    lines = []
    for key in dict.fromkeys((row["allocation"], row["method"], row["mode"]) for row in rows):
        some = [row for row in rows if (row["allocation"], row["method"], row["mode"]) == key]

        def mean(what: str, some: Sequence[Row] = some) -> float:
            return float(np.mean([row[what] for row in some]))

        lines.append(
            f"| {key[0]} | {key[2]} | {len(some)} | {mean('ratio'):.3f} | {mean('macs'):.2f} | {mean('params'):.2f} | "
            f"{key[1]} | {mean('cosine'):.3f} | {mean('kl'):.2f} | {100 * mean('agreement'):.0f} % |\n"
        )
    return lines


def _once(file: Path, work: Callable[[], Any]) -> None:
    if not file.exists():
        file.write_text(json.dumps(work(), indent=1) + "\n")


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="NAME=FILE[@SHAPE]")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fidelity", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--note", default="", help="how it was measured, for the end of the page")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for threads in given.threads:
        for text in given.models:
            name, _, rest = text.partition("=")
            file, _, extents = rest.partition("@")
            shape = tuple(int(extent) for extent in extents.split(",")) if extents else None

            def row(name: str = name, file: str = file, shape: Any = shape, threads: int = threads) -> Row:
                return {"model": name, **time_row(Path(file), shape, threads)}

            _once(given.work / f"time-{name}-{threads}.json", row)
            given.page.write_text(page(given.work, given.note))
    if given.fidelity is not None:
        _once(given.work / "fidelity.json", lambda: fidelity_rows(given.fidelity))
    given.page.write_text(page(given.work, given.note))


if __name__ == "__main__":
    main()
