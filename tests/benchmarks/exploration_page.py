"""The page about the study of explorations: text with the figures filled in."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.exploration import Figures, Results, Run
from tests.benchmarks.exploration_connectivity import MEASURES

_TITLES = ("accuracy", "parameters", "MACs", "memory (kB)", "file (kB)", "latency (ms)")


def write(path: Path, results: Results, figures: Mapping[str, Any]) -> None:
    """Write the page."""
    parts = [_HEAD.format(**_facts(results))]
    parts.append(
        _table(["run", *_TITLES], [["the original", *_row(results.original)], *_rows(results.pareto(["flops"]))])
    )
    parts.append(_BETWEEN)
    parts.append(_means(results))
    if "picks" in figures:
        parts += [_PICKS, _picks(figures["picks"])]
    if "connectivity" in figures:
        parts += [_CONNECTED, *_connected(figures["connectivity"])]
    parts.append(_costs(figures))
    parts.append(_GUIDE)
    parts.append(_tail())
    path.write_text("\n\n".join(parts) + "\n")


_HEAD = """# An exploration

Written by `python -m tests.benchmarks.exploration`; do not edit by hand. Accuracy of ResNet-20 (half its width, first
stride 2: {params:,.0f} parameters, {flops:,.0f} MACs) on the 10,000 test images of Fashion-MNIST, pruned in {modes}
modes by {reductions} with {seeds} seeds, and trained for one pass over {images:,} images afterwards: {runs} runs,
{failed} failed. The median run took {seconds:.0f} s on one of two processors that others were using, too. The table is
[exploration.sqlite](exploration.sqlite) ({size:.0f} kB, plans included).

![Accuracy against MACs, parameters, memory and latency](img/exploration.svg)

```
onnxprune explore resnet20.onnx --data '/usr/share/datasets/fashion-mnist?mean=0.286&std=0.353&limit=20000' \\
    -o exploration.sqlite --reduce 0.3,0.5,0.7,0.85 --seeds 0,1 --then train --epochs 1 --lr 5e-3
```

Runs that no other beats in accuracy and MACs:"""

_BETWEEN = """Where little is removed, this small network does not get faster: onnxruntime's blocked convolutions take
channels eight or sixteen at a time, and what is left of 8, 16 or 32 fills no block; `--round-to 8` keeps them full.

All runs, by mode (columns: the fraction removed of what the mode counts; mean accuracy of the seeds):"""

_PICKS = """## Picks

`onnxprune pick exploration.sqlite LIMITS -o OUT`. No models were kept, so the pruned model is made and trained again
from its plan and recipe; the written file is then run in onnxruntime. "Counted" is what a separate count found in the
written file: right answers on the test images, elements of floating point initialisers, bytes on disk."""


_CONNECTED = """## Does connectivity predict accuracy?

`depth`, `mean_depth`, `width` and `paths` are columns of a table of runs (this one is older; here they follow from its
plans), and `onnxprune analyze` shows them for one model: layers with weights on the longest way from an input to an
output, the same on average over all ways, the fewest channels through which everything goes between the first and the
last layer (a minimal cut), and the logarithm of the number of ways through channels. The idea is that of
"Connectivity Matters" (Vysogorets & Kempe, arXiv 2107.02306); the definitions are ours.

Rank correlations with the accuracy, with 95 % intervals from 10,000 bootstrap draws of the runs (1,000 for Kendall's).
"Beyond both" is Spearman's partial correlation: what a measure's ranks still tell where MACs and parameters are known.
"Over MACs" is by how much Spearman's exceeds that of MACs, in the same draws."""

_HONEST = """What that says:

- The number of ways ranks the runs as MACs do ({paths:.2f} and {flops:.2f}), and no better: the interval of the
  difference holds 0, and so does that of what it tells beyond MACs and parameters.
- Parameters rank worse than MACs ({params:.2f}), in the runs up to −70 % by more than chance.
- The narrowest place tells least over all runs. The longest way is the same in all of them: removing channels removes
  no layers.
- The mean depth, which falls where branches become thin beside their skips, ranks best in the runs up to −70 %, and
  tells something beyond MACs and parameters there. It is one of several comparisons that were looked at, on {runs} runs
  of one network with two seeds: a hint, and no result.

onnxprune plans by none of these."""


_GUIDE = """## What to know

- **A run** is identified by the contents of model and data and by everything that decides its result; called again,
  `explore` makes only what is missing. Runs are recorded one by one in SQLite, whatever ends the rest: Ctrl-C, a killed
  process, a full disk. Runs that fail are recorded with the reason; `--retry-failed` makes them again.
- **Latencies** are measured in turns with the original, and recorded as the ratio of the fastest turns times the
  latency of the original at the beginning, because other runs use the same machine meanwhile. `pick` measures again.
- **`--search N`** takes N settings that cover the grid evenly (a Halton sequence), reductions in between included. A
  longer search contains a shorter one, and the order in which runs end does not matter. With **`--search-by tpe`**
  (optuna, the extra `search`) a third of the runs is drawn at random, and the others are chosen, eight at a time, by
  accuracy and one resource of those before; so equal `--search-seed` and N ask for equal runs whatever `--jobs` is
  (more than eight help with the first third alone), and given again, it goes on. Where a run is weighed by its latency,
  that holds as far as latencies repeat. Two networks, 30 searches each, after 10, 20 and 40 runs: hypervolume .659,
  .705 and .729 evenly and .682, .733 and .747 so (residual), .691, .732 and .753 and .716, .750 and .764 (VGG); chosen
  one at a time .687, .733 and .749, and .724, .752 and .762. The best accuracy with half of the MACs gone is up to
  1.2 points better than evenly, but 0.3 worse for VGG after 10 runs. Optuna's NSGA-II was worse than either.
  `python -m tests.benchmarks.search`, [search.csv](search.csv).
- **`--precision float,int8`** makes every run twice: as it is, and with layers in 8-bit integers where that is measured
  to be faster, with training samples for ranges (as `prune --int8` has it). What is judged and timed is the file.
- **`--keep FOLDER`** keeps the pruned models; `pick --keep FOLDER` then takes the very file, if its hash is that of the
  run. Without, `pick` makes the model again: certain for `--then nothing` and `compensate`; training repeats to the bit
  on the same machine with as many threads, elsewhere nearly. What is handed over has been measured either way.
- **Clusters**: `--backend dask --scheduler tcp://HOST:8786` (`pip install '.[dask]'`) or `--backend ray`
  (the extra `ray`). Workers see model and data under the same paths and have the same onnxprune; start Dask's with
  `--nthreads 1`. Only the process that was started writes the table. Runs whose worker dies are made elsewhere.
- **`merge A B -o C`** joins tables of one model and the same data, each run once.

```python
from onnxprune.exploration import Grid, Limits, explore, pick, read_results

results = explore("m.onnx", "data.npz", "results.sqlite", Grid(reduce=[0.3, 0.5], criteria=["l2", "fpgm"]))
results.pareto(["latency", "size"])  # runs that no other beats
results.to_pandas()
results.plan(results.runs[0].key)
pick(results, Limits(max_latency=5e-3, min_accuracy=0.9), "small.onnx").checked
```"""


def _facts(results: Results) -> dict[str, Any]:
    original = results.original or Figures()
    reductions = sorted({run.reduce for run in results.runs})
    seconds = sorted(run.seconds for run in results.done)
    return {
        "params": original.params,
        "flops": original.flops,
        "modes": len({run.mode for run in results.runs}),
        "reductions": ", ".join(f"{100 * r:g}" for r in reductions) + " %",
        "seeds": len({run.seed for run in results.runs}),
        "images": int(results.about.data.rpartition("limit=")[2]),
        "runs": len(results.runs),
        "failed": len(results.failed),
        "seconds": seconds[len(seconds) // 2],
        "size": results.path.stat().st_size / 1000,
    }


def _row(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["" for _ in _TITLES]
    accuracy, params, flops, memory, size, latency = (
        getattr(figures, name) or float("nan") for name in ("accuracy", "params", "flops", "memory", "size", "latency")
    )
    return [
        f"{100 * accuracy:.2f} %",
        f"{params:,.0f}",
        f"{flops:,.0f}",
        f"{memory / 1000:.0f}",
        f"{size / 1000:.0f}",
        f"{1000 * latency:.3f}",
    ]


def _rows(runs: Sequence[Run]) -> list[list[str]]:
    return [[f"{run.mode} −{100 * run.reduce:g} %, seed {run.seed}", *_row(run)] for run in reversed(runs)]


def _means(results: Results) -> str:
    reductions = sorted({run.reduce for run in results.done})
    rows = []
    for mode in dict.fromkeys(run.mode for run in results.done):
        cells = []
        for reduce in reductions:
            found = [run.accuracy or 0.0 for run in results.done if run.mode == mode and run.reduce == reduce]
            cells.append(f"{100 * sum(found) / len(found):.2f} %" if found else "-")
        rows.append([mode, *cells])
    return _table(["mode", *(f"−{100 * reduce:g} %" for reduce in reductions)], rows)


def _picks(picks: Sequence[Mapping[str, Any]]) -> str:
    head = ["limits", "run", "accuracy recorded", "written", "counted", "MACs", "parameters", "elements counted"]
    head.append("bytes recorded and counted")
    rows = []
    for made in picks:
        if "refused" in made:
            rows.append([f"`{made['asked']}`", made["refused"], *("" for _ in head[2:])])
            continue
        recorded, checked, counted = made["recorded"], made["checked"], made["counted"]
        rows.append(
            [
                f"`{made['asked']}`",
                f"{recorded['mode']} −{100 * recorded['reduce']:g} %, seed {recorded['seed']}",
                *(f"{100 * figures['accuracy']:.2f} %" for figures in (recorded, checked, counted)),
                f"{checked['flops']:,.0f}",
                f"{checked['params']:,.0f}",
                f"{counted['elements']:,}",
                f"{recorded['size']:,.0f}, {counted['size']:,}",
            ]
        )
    return _table(head, rows)


def _connected(figures: Mapping[str, Any]) -> list[str]:
    parts = []
    for space, rows in figures["spaces"].items():
        head = [f"{space} ({rows['runs']})", "Spearman", "Kendall", "beyond both", "over MACs"]
        parts.append(_table(head, [_ranked(title, rows[name]) for name, title in MEASURES.items()]))
    whole = figures["spaces"]["all runs"]
    known = {name: whole[name]["spearman"][0] for name in ("paths", "flops", "params")}
    return [*parts, _HONEST.format(**known, runs=whole["runs"])]


def _ranked(title: str, row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return [title, "the same in all runs", "", "", ""]
    estimates = [row[name] for name in ("spearman", "kendall", "beyond")]
    cells = ["" if one is None else f"{one[0]:.2f} ({one[1]:.2f} to {one[2]:.2f})" for one in estimates]
    low, high = row["over_flops"]
    return [title, *cells, "" if low == high else f"{low:+.2f} to {high:+.2f}"]


def _costs(figures: Mapping[str, Any]) -> str:
    lines = ["## What exploring costs", ""]
    if "overhead" in figures:
        over = figures["overhead"]
        share = over["explored"] / over["bare"] - 1
        lines.append(
            f"- {over['runs']} short runs took {over['explored']:.2f} s of the processor with `explore`, and "
            f"{over['bare']:.2f} s when written out by hand (prune with certificate, train on 3,000 images, evaluate "
            f"on 10,000, measure; the original, too): {100 * share:+.1f} %, within the spread of such figures on a "
            "machine that others use."
        )
    if "scale" in figures:
        scale = figures["scale"]
        lines.append(
            f"- A table of 10,000 runs ({scale['bytes'] / 1e6:.0f} MB with their plans) is read in {scale['load']:.2f} "
            f"s, its non-dominated sets over one and five resources are found in {scale['pareto']:.2f} s, and four "
            f"scatter plots are drawn in {scale['plot']:.2f} s (of the processor)."
        )
    return "\n".join(lines)


def _tail() -> str:
    return f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, torch {version('torch')}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
