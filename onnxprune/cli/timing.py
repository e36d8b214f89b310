"""The time of a result beside its original's: what ``prune`` and ``apply`` end with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.terminal import Terminal
from onnxprune.errors import OnnxPruneError

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import InputShapes
    from onnxprune.ir.engine import Engine
    from onnxprune.ir.model import ModelLike
    from onnxprune.latency.bench import Bench
    from onnxprune.pruning.plan import Plan

NoBenchOption = Annotated[
    bool, typer.Option("--no-bench", help="Do not time the result beside the original.", hidden=True)
]
#: All runs together take a second at most, where one takes less than a fifth of it.
_SECONDS, _LEAST, _MOST = 0.6, 2, 60


def beside(
    terminal: Terminal, original: ModelLike, *results: ModelLike, shapes: InputShapes | None, engine: Engine
) -> Bench | str:
    """The times of models in turns, or why there are none: that is no reason to keep a result back."""
    from onnxprune.ir.sampling import Rounds
    from onnxprune.latency.bench import bench

    with terminal.step("Timing"):
        try:
            return bench(
                original,
                *results,
                threads=engine.threads,
                provider=engine.provider,
                runtime=engine.runtime,
                input_shapes=shapes,
                rounds=Rounds(warmup=1, least=_LEAST, most=_MOST, seconds=_SECONDS),
                memory=False,
                precision=False,
            )
        except OnnxPruneError as error:
            return str(error)


def timing_lines(timed: Bench | str, plan: Plan) -> list[tuple[str, str]]:
    """What was measured, with a style; where the result is not faster, why that may be and what to do."""
    if isinstance(timed, str):
        return [(f"Not timed: {timed}.", "yellow")]
    ratio = timed.subjects[1].ratio
    assert ratio is not None  # of all but the first
    told = f"Time of a run: {timed.beside_first()}."
    if ratio.median < 1 or not plan:
        return [(told, "")]
    if plan.settings.get("round_to") == 1:
        why = "channel counts as they fall miss the engine's blocks; --round-to auto keeps to them"
    else:
        why = "what went takes little of the time; --mode latency measures what does, and plans by it"
    return [(told, "yellow"), (f"The result is {'slower' if ratio.low > 1 else 'no faster'}: {why}.", "yellow")]
