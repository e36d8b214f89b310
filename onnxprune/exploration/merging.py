"""Joining tables of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnxprune.errors import ResultsError
from onnxprune.exploration.results import Results, read_results
from onnxprune.exploration.runs import beside
from onnxprune.exploration.store import Reader, Store, check_same


def merge(tables: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Results:
    """Join the runs of several tables of one model and the same data, each once.

    A run that is done in one table and failed in another counts as done. The figures of the original are those of
    the first table that has them. ``output`` may exist already: then its runs stay.

    Raises:
        ResultsError: no tables, one is damaged, or they cannot be compared.
        RecordingError: the output cannot be written.
    """
    if not tables:
        raise ResultsError("give at least one table of results to join")
    target = Path(output)
    with Reader(Path(tables[0])) as first:
        about = first.about()
    for table in tables:  # All are read before anything is written.
        with Reader(Path(table)) as reader:
            check_same(Path(tables[0]), about, reader.about())
            reader.original()
            reader.runs()
            for _ in reader.plans():
                pass
    with Store.open(target, about) as store:
        for table in tables:
            if target.exists() and Path(table).exists() and target.samefile(table):
                continue
            with Reader(Path(table)) as reader:
                _copy(reader, store)
    return read_results(target)


def _copy(reader: Reader, store: Store) -> None:
    about = reader.about()
    check_same(store.path, store.about, about)
    original, known = reader.original(), store.original
    if original is not None and (known is None or (known.latency is None and original.latency is not None)):
        store.set_original(original, about.engine)
    plans = dict(reader.plans())
    base = store.original
    for run in reader.runs():
        store.add(beside(run, base), plans.get(run.key))
