"""What a table of runs may hold: whoever wrote it, nothing is taken for a figure that is none."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from onnxprune.data.tasks import AUTO
from onnxprune.errors import ResultsError
from onnxprune.exploration.runs import About, Figures, Run
from onnxprune.ir.plain import is_number, parse

_MOST_THREADS = 4096
_LONGEST_PLAN = 1 << 28
"""Bytes of JSON."""
_FIGURES = tuple(field.name for field in fields(Figures))
_ALWAYS = ("params", "flops", "memory", "size")
"""What every finished run has a figure of."""


def run_of_row(row: Mapping[str, Any], number: int, path: Path) -> Run:
    """The run of a row of a table.

    Args:
        row: values by column.
        number: of the row.
        path: the table.

    Raises:
        ResultsError: a value is of a type or kind that its column does not have; the message names run and column.
    """
    checked = {name: _figure(name, value) if name in _FIGURES else value for name, value in row.items()}
    for field in fields(Run):
        value = checked[field.name]
        if not _fits(field.name, str(field.type), value, row["status"] == "done"):
            raise ResultsError(
                f"run {row['key']!r} of {path} has {str(value)[:40]!r} in column '{field.name}', which is "
                f"{_WANTED[str(field.type)]}; restore a copy, or take the run out with: sqlite3 {path} "
                f"'DELETE FROM runs WHERE rowid = {number}'"
            )
    return Run(**checked)


_WANTED = {
    "str": "no text of its kind",
    "Status": "neither done nor failed",
    "int": "no whole number",
    "float": "no number",
    "float | None": "no number that can be measured",
}


def _fits(name: str, kind: str, value: Any, done: bool) -> bool:
    if kind == "Status":
        return value in ("done", "failed")
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return is_number(value)
    if kind == "float | None":
        if value is None:
            return not (done and name in _ALWAYS)
        return is_number(value) and (name == "accuracy" or value >= 0)
    return isinstance(value, str) and (name != "settings" or _is_mapping(value))


def _figure(name: str, value: Any) -> Any:
    """Accuracy that cannot be told, as of a model with NaN in its outputs, is recorded as such: not as none at all."""
    return None if name == "accuracy" and isinstance(value, float) and not is_number(value) else value


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(parse(text), dict)
    except ValueError:
        return False


def figures_of(text: Any) -> Figures:
    """Figures that were recorded as JSON. Raises ValueError for anything else."""
    data = {name: _figure(name, value) for name, value in _mapping(text).items()}
    for name, value in data.items():
        if name not in _FIGURES or not _fits(name, "float | None", value, False):
            raise ValueError(f"the original has {str(value)[:40]!r} for {name!r}")
    return Figures(**data)


def about_of(rows: Mapping[Any, Any]) -> About:
    """What runs have in common, recorded as JSON by name. Raises ValueError for anything else."""
    known = {field.name: str(field.type) for field in fields(About)}
    data = {name: parse(value) for name, value in rows.items() if name in known}
    data.setdefault("task", AUTO)  # of tables that knew no other
    for name, kind in known.items():
        if kind == "str" and not isinstance(data.get(name), str):
            raise ValueError(f"it does not tell its {name}")
    if data["score"] not in ("accuracy", "r2", "answers", "agreement"):
        raise ValueError(f"its score is {data['score'][:40]!r}")
    engine, shapes = (data.pop(name, {}) for name in ("engine", "input_shapes"))
    if not isinstance(engine, dict) or not all(_is_engine(name, value) for name, value in engine.items()):
        raise ValueError("its engine is none")
    if not isinstance(shapes, dict) or not all(_is_shape(shape) for shape in shapes.values()):
        raise ValueError("its input shapes are none")
    return About(**data, engine=engine, input_shapes={name: tuple(shape) for name, shape in shapes.items()})


def _is_engine(name: str, value: Any) -> bool:
    if name in ("provider", "runtime"):
        return isinstance(value, str)
    return name in ("threads", "inter_threads") and type(value) is int and 0 <= value <= _MOST_THREADS


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(extent) is int and extent > 0 for extent in shape)


def _mapping(text: Any) -> dict[str, Any]:
    data = parse(text, finite=False) if isinstance(text, (str, bytes)) else None
    if not isinstance(data, dict):
        raise ValueError(f"{str(text)[:40]!r} is no JSON object")
    return data


def unpacked(packed: Any) -> str:
    """The JSON of a plan that was recorded. Raises ValueError where it is damaged, or longer than any plan."""
    if not isinstance(packed, bytes):
        raise ValueError("it is no compressed text")
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(packed, _LONGEST_PLAN)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not decompressor.eof:
        raise ValueError("it is cut off" if len(text) < _LONGEST_PLAN else "it is longer than any plan")
    return text.decode()
