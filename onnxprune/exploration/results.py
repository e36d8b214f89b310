"""Recorded runs, read back: as data, as a table, and as a trade-off."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune._display import Table, long, seconds
from onnxprune.errors import PlanError, ResultsError
from onnxprune.exploration.pareto import RESOURCES, pareto_front
from onnxprune.exploration.runs import About, Figures, Run
from onnxprune.exploration.store import Reader

if TYPE_CHECKING:
    import pandas as pd

    from onnxprune.pruning.plan import Plan

_SHOWN = ("accuracy", *RESOURCES)


@dataclass(frozen=True)
class Results:
    """All runs of a table.

    Attributes:
        path: the file.
        about: what the runs have in common.
        original: the figures of the model as it was; None if they are not recorded yet.
        runs: in the order in which they were recorded, failures included.
    """

    path: Path
    about: About
    original: Figures | None
    runs: tuple[Run, ...]

    @cached_property
    def done(self) -> tuple[Run, ...]:
        """The runs that came to their end."""
        return tuple(run for run in self.runs if run.done)

    @cached_property
    def failed(self) -> tuple[Run, ...]:
        """The runs that did not."""
        return tuple(run for run in self.runs if not run.done)

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that all finished runs have a figure of, latency first where it was measured."""
        known = [name for name in RESOURCES if all(getattr(run, name) is not None for run in self.done)]
        return tuple(sorted(known, key=lambda name: name != "latency"))

    def pareto(self, over: Sequence[str] | None = None) -> tuple[Run, ...]:
        """The runs that neither another nor the original beats in accuracy and these, the least accurate first.

        Args:
            over: some of ``params``, ``flops``, ``memory``, ``latency`` and ``size``; without it latency, or FLOPs
                where no latency was measured.

        Raises:
            UsageError: an unknown resource.
        """
        return pareto_front(self.runs, self.weighed if over is None else over, self.original)

    @property
    def weighed(self) -> tuple[str, ...]:
        """What accuracy is weighed against where nothing else is asked for."""
        return ("latency",) if "latency" in self.resources else ("flops",)

    def plan(self, key: str) -> Plan:
        """The plan of one run. Raises ResultsError if there is none."""
        from onnxprune.ir.plain import parse
        from onnxprune.pruning.plan import Plan

        try:
            return Plan.from_dict(parse(self.plan_json(key)))
        except (ValueError, PlanError) as error:
            raise ResultsError(f"the plan of run {key} in {self.path} is damaged: {error}") from error

    def plan_json(self, key: str) -> str:
        """The plan of one run as JSON. Raises ResultsError if there is none."""
        found = dict(self.plans([key]))
        if key not in found:
            raise ResultsError(f"{self.path} has no plan of run {key}")
        return found[key]

    def plans(self, keys: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
        """(key, plan as JSON) of these runs, or of all that have one; read from the file one by one."""
        with Reader(self.path) as reader:
            yield from reader.plans(keys)

    def to_pandas(self) -> pd.DataFrame:
        """A row per run. Raises UsageError where pandas is not installed."""
        columns = (*Run.__dataclass_fields__, "precision")
        return Table(columns, tuple(tuple(getattr(run, column) for column in columns) for run in self.runs)).to_pandas()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the plans as plain data for JSON."""
        return {
            "about": asdict(self.about),
            "original": None if self.original is None else asdict(self.original),
            "runs": [{**asdict(run), "precision": run.precision} for run in self.runs],
        }

    def _repr_html_(self) -> str:
        """For notebooks: the trade-off as a table."""
        rows = tuple((run.label, *(_written(run, name) for name in _SHOWN)) for run in self.pareto())
        caption = f"{self.about.model}: {len(self.done)} runs, {len(self.failed)} failed; those that no other beats"
        return Table(("run", *_SHOWN), rows, caption).to_html()


def _written(run: Run, name: str) -> str:
    value = getattr(run, name)
    if value is None:
        return ""
    written = {"accuracy": "{:.3f}".format, "latency": seconds, "params": long, "flops": long}
    return written.get(name, lambda size: long(size, "B"))(value)


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read a table of runs; it may be in use.

    Raises:
        ResultsError: the file is missing, damaged or no table of results.
    """
    where = Path(path)
    with Reader(where) as reader:
        return Results(where, reader.about(), reader.original(), reader.runs())
