"""``onnxprune explore`` and ``merge``: many prunings of one model, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxprune._display import MACS
from onnxprune.cli import training as options
from onnxprune.cli.files import Paths
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, Offer, input_shapes, offering
from onnxprune.cli.reading import read
from onnxprune.cli.runs import runs_table, score_words
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError, unknown
from onnxprune.ir.files import same_place
from onnxprune.pruning.options import JobOptions, PlanOptions

if TYPE_CHECKING:
    from onnxprune.exploration.backends import Backend
    from onnxprune.exploration.exploring import Progress
    from onnxprune.exploration.results import Results
    from onnxprune.exploration.steps import Step

_GRID, _WHERE, _MEASURE = "What to try", "Where runs are made", "What is measured"
_TRAINING = "Training"
_LIST = "A,B,…"
SEARCHES = ("halton", "tpe")
"""How ``--search`` chooses its runs."""

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="Data to judge models with: an .npz file, a folder of IDX files or images, or module:function; options "
        "like ?mean=0.286&std=0.353&limit=5000 may follow.",
        show_default=False,
    ),
]
OverOption = Annotated[
    str | None,
    typer.Option(
        metavar="latency,size",
        help="What to weigh accuracy against: some of params, flops, memory, latency and size.",
        show_default=False,
    ),
]


def _listed(text: str, name: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",") if part.strip()))
    except ValueError as error:
        raise UsageError(f"{name} '{text}' is not a list of numbers like 0.3,0.5") from error


@offering
def explore(
    *,
    model: ModelArgument,
    data: DataOption,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="RESULTS",
            help="The table (SQLite) to record runs in; runs that it has already are not made again.",
            show_default=False,
        ),
    ],
    modes: Annotated[
        str, typer.Option(metavar=_LIST, help="Complexities to draw layers by and to reduce.", rich_help_panel=_GRID)
    ] = "params,flops,memory",
    reduce: Annotated[
        str, typer.Option(metavar=_LIST, help="Fractions of them to remove.", rich_help_panel=_GRID)
    ] = "0.3,0.5,0.7",
    allocation: Annotated[
        str, typer.Option(metavar=_LIST, help="How many go from which layer; see prune.", rich_help_panel=_GRID)
    ] = "complexity",
    criterion: Annotated[
        str, typer.Option(metavar=_LIST, help="Which channels of a layer go first; see prune.", rich_help_panel=_GRID)
    ] = "l2",
    seeds: Annotated[str, typer.Option(metavar=_LIST, help="Of all draws.", rich_help_panel=_GRID)] = "0",
    then: Annotated[
        str,
        typer.Option(
            metavar=_LIST, help="What follows the pruning: nothing, train or compensate.", rich_help_panel=_GRID
        ),
    ] = "nothing",
    precision: Annotated[
        str,
        typer.Option(
            metavar=_LIST,
            help="In which numbers what comes of it computes: float, or int8 where that is measured to be faster, as "
            "by prune --int8.",
            rich_help_panel=_GRID,
        ),
    ] = "float",
    search: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Instead of all combinations, N that cover them evenly, with reductions in between, too. A longer "
            "search contains a shorter one.",
            rich_help_panel=_GRID,
            show_default=False,
        ),
    ] = None,
    search_by: Annotated[
        str,
        typer.Option(
            metavar="halton|tpe",
            help="How: halton covers evenly; tpe (optuna) chooses by accuracy and resource (the first of --over, else "
            "flops) of the runs before, eight at a time.",
            rich_help_panel=_GRID,
        ),
    ] = "halton",
    search_seed: Annotated[int, typer.Option(min=0, help="Of the search.", rich_help_panel=_GRID, hidden=True)] = 0,
    plan: Annotated[
        PlanOptions,
        Offer(
            ("floor", "round_to", "include", "exclude"),
            panel=_GRID,
            helps={"": "As in prune.", "include": "As in prune. Repeatable.", "exclude": "As in prune. Repeatable."},
        ),
    ],
    epochs: options.EpochsOption = 10,
    lr: options.RateOption = 1e-3,
    batch_size: options.BatchSizeOption = 128,
    optimizer: options.OptimizerOption = "adamw",
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch/--fine-tune",
            help="Begin training with fresh weights, or with those of the file.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    restore_batchnorm: options.RestoreOption = False,
    schedule: options.ScheduleOption = "cosine",
    warm_up: options.WarmUpOption = 0.1,
    weight_decay: options.WeightDecayOption = 1e-2,
    label_smoothing: options.SmoothingOption = 0.0,
    compensate: Annotated[
        str, typer.Option(help="How to compensate: refit or bias; see prune.", rich_help_panel=_TRAINING, hidden=True)
    ] = "refit",
    calibration_samples: Annotated[
        int,
        typer.Option(
            min=1, help="How many samples to compensate and to quantise with.", rich_help_panel=_TRAINING, hidden=True
        ),
    ] = 256,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes; as many as there are processors, if not given.",
            rich_help_panel=_WHERE,
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="processes (of this machine), dask or ray.", rich_help_panel=_WHERE, hidden=True)
    ] = "processes",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Of a Dask scheduler, like tcp://10.0.0.1:8786, or of a Ray cluster. Its workers have to see model "
            "and data under the same paths.",
            rich_help_panel=_WHERE,
            show_default=False,
            hidden=True,
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the pruned models there; without it, pick makes the one it needs again.",
            rich_help_panel=_WHERE,
            show_default=False,
            hidden=True,
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Make those runs again that failed.", rich_help_panel=_WHERE, hidden=True),
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the runtime, per process.", rich_help_panel=_MEASURE)
    ] = 1,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What latencies are measured in: onnxruntime, openvino, ...",
            rich_help_panel=_MEASURE,
            hidden=True,
        ),
    ] = "onnxruntime",
    no_latency: Annotated[
        bool, typer.Option("--no-latency", help="Do not measure latencies.", rich_help_panel=_MEASURE)
    ] = False,
    over: OverOption = None,
    job: Annotated[JobOptions, Offer(("task",), panel=_MEASURE)],
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prune a model in many ways, and record what each loses and saves.

    Every run prunes, is judged on held-out data and measured; killed and started again, only what is missing is done.
    """
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    paths.read_data(data)
    paths.write(*table_files(output))
    loaded = read(terminal, model)
    from onnxprune.exploration.exploring import Exploration
    from onnxprune.exploration.exploring import explore as make
    from onnxprune.exploration.grid import Grid
    from onnxprune.exploration.pareto import check_resources
    from onnxprune.exploration.steps import Compensate, Float, Int8, Nothing, Train
    from onnxprune.exploration.subject import default_rounds
    from onnxprune.ir.engine import Engine

    resources = None if over is None else check_resources(_listed(over, "--over", str))
    recipe = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "start": "from-scratch" if from_scratch else "fine-tune",
        "restore_batchnorm": restore_batchnorm,
        "schedule": schedule,
        "warm_up": warm_up,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
    }
    known: dict[str, Step] = {
        "nothing": Nothing(),
        "train": Train(tuple(sorted(recipe.items()))),
        "compensate": Compensate(compensate, calibration_samples),
    }
    numbers: dict[str, Step] = {"float": Float(), "int8": Int8(calibration_samples, threads)}
    grid = Grid(
        modes=_listed(modes, "--modes", str),
        reduce=_listed(reduce, "--reduce", float),
        allocations=_listed(allocation, "--allocation", str),
        criteria=_listed(criterion, "--criterion", str),
        seeds=_listed(seeds, "--seeds", int),
        steps=_steps("--then", _listed(then, "--then", str), known),
        precisions=_steps("--precision", _listed(precision, "--precision", str), numbers),
        options=plan,
    )
    if search_by not in SEARCHES:
        raise UsageError(unknown("--search-by", search_by, SEARCHES))
    learning = search_by == "tpe"
    if learning and search is None:
        raise UsageError("--search-by tpe says how to search: give --search N, too")
    settings = grid.settings() if search is None else () if learning else grid.search(search, search_seed)
    where = _backend(backend, scheduler, jobs, threads)
    with _bar(terminal) as progress:
        how = Exploration(
            backend=where,
            engine=Engine(threads, runtime=runtime),
            rounds=None if no_latency else default_rounds(),
            keep=keep,
            retry=retry_failed,
            progress=progress,
        )
        try:
            shapes = input_shapes(input_shape, loaded)
            made = partial(make, model, data, output, input_shapes=shapes, task=job.task, how=how)
            if learning and search is not None:
                from onnxprune.exploration.optimising import optimise

                results = optimise(grid, search, made, over=(resources or ("flops",))[0], seed=search_seed)
            else:
                results = made(settings)
        except KeyboardInterrupt:
            typer.echo("What was recorded is safe: give the same command again to go on.", err=True)
            raise
    show_results(terminal, results, resources)


def merge(
    tables: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Tables of one model and the same data.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RESULTS", help="The table to join them in.", show_default=False),
    ],
    over: OverOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join tables that 'explore' recorded, every run once."""
    terminal = Terminal(as_json)
    from onnxprune.exploration.merging import merge as join
    from onnxprune.exploration.pareto import check_resources

    resources = None if over is None else check_resources(_listed(over, "--over", str))
    paths = Paths()
    paths.read(*(table for table in tables if not same_place(table, output)))
    paths.write(*table_files(output))
    with terminal.step("Joining"):
        results = join(tables, output)
    show_results(terminal, results, resources)


def table_files(table: Path) -> tuple[Path, ...]:
    """A table and what SQLite writes beside it meanwhile."""
    return (table, *(table.with_name(table.name + ending) for ending in ("-wal", "-shm", "-journal")))


def show_results(terminal: Terminal, results: Results, resources: Sequence[str] | None) -> None:
    """The runs that no other beats, and what failed."""
    front = results.pareto(resources) if results.done else ()
    terminal.json({**results.to_dict(), "pareto": [run.key for run in front]})
    if terminal.as_json:
        return
    weighed = " and ".join(resources or results.weighed)
    if front:
        terminal.show(runs_table(results, front), "")
        terminal.show(
            f"Neither another run nor the original beats these in accuracy and {weighed} (--over). "
            f"{score_words(results.about)} {MACS}"
        )
    elif results.done:
        terminal.show(
            f"Nothing to recommend: the original is as accurate as every run, with no more {weighed} (--over weighs "
            "others).",
            style="yellow",
        )
    for reason, count in _reasons(results).items():
        terminal.show(f"{count} failed: {reason}", style="yellow")
    if results.failed:
        terminal.show("Runs that failed are not made again, unless --retry-failed asks for it.", style="yellow")
    runs = "1 run" if len(results.done) == 1 else f"{len(results.done)} runs"
    terminal.show(f"{runs} in {results.path}; 'onnxprune pick' writes the model of one.")


def _reasons(results: Results, most: int = 5) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in results.failed:
        found[run.message] = found.get(run.message, 0) + 1
    listed = sorted(found.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in listed[most:])
    return {**dict(listed[:most]), **({"for other reasons": rest} if rest else {})}


def _steps(option: str, names: Sequence[str], known: Mapping[str, Step]) -> tuple[Step, ...]:
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(unknown(option, missing[0], known, "some of"))
    if "train" in names:
        options.require_torch()
    for name in names:
        known[name].to_dict(seed=0)  # Odd values are refused now, and not in every run.
    return tuple(known[name] for name in names)


def _backend(name: str, scheduler: str | None, jobs: int | None, threads: int) -> Backend:
    if name not in ("processes", "dask", "ray"):
        raise UsageError(unknown("--backend", name, ("processes", "dask", "ray")))
    if name != "processes" and jobs is not None:
        raise UsageError(f"--jobs is for processes of this machine; how many runs {name} makes is up to its workers")
    if name == "processes":
        return _processes(scheduler, jobs, threads)
    from onnxprune.exploration.clusters import Dask, Ray

    if name == "ray":
        return Ray(scheduler)
    if scheduler is None:
        raise UsageError("--backend dask needs the address of its scheduler: --scheduler tcp://10.0.0.1:8786")
    return Dask(scheduler)


def _processes(scheduler: str | None, jobs: int | None, threads: int) -> Backend:
    from onnxprune.exploration.backends import Here, Processes

    if scheduler is not None:
        raise UsageError("--scheduler is for clusters: add --backend dask or --backend ray")
    if jobs is None:
        import joblib

        jobs = max(1, joblib.cpu_count() // threads)
    return Here() if jobs == 1 else Processes(jobs, threads)


@contextmanager
def _bar(terminal: Terminal) -> Iterator[Callable[[Progress], None]]:
    """A progress bar with the time that is left, if somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    # The speed of the last runs, long ones in parallel, tells the time that is left.
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=600,
    )
    task = bar.add_task("Measuring the original", total=None, failed="")

    def show(progress: Progress) -> None:
        if progress.last is None:
            # What was recorded before says nothing about the speed.
            bar.reset(task, total=progress.total, completed=progress.recorded, description="Exploring")
        bar.update(task, completed=progress.recorded, failed=f"{progress.failed} failed" if progress.failed else "")

    with bar:
        yield show
