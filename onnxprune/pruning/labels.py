"""Classes by number or name: where a model tells their names, and which positions of which output say them."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from onnxprune.errors import UsageError, unknown
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.shapes import Shapes

_BOXES = (0, 4, 5)
"""What may stand on the axis before the classes: nothing, a box, or a box and how sure it is (YOLO's exports)."""
_MOST_TEXT = 1 << 20
_MOST_MEANT = 8


@dataclass(frozen=True)
class Selection:
    """The positions of one axis of a graph output that are kept, ascending; their number is less than the extent."""

    output: str
    axis: int
    positions: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.output}[{self.axis}]={','.join(map(str, self.positions))}"

    @classmethod
    def parse(cls, text: str) -> Selection:
        """From text such as ``logits[1]=0,5,10-19``. Raises UsageError."""
        left, sign, right = text.rpartition("=")
        name, bracket, axis = left.removesuffix("]").rpartition("[")
        if not sign or not bracket or not left.endswith("]") or not axis.isdecimal() or not name:
            raise UsageError(f"positions to keep are written OUTPUT[AXIS]=0,5,10-19, not '{text}'")
        found: set[int] = set()
        for part in right.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 20:
                raise UsageError(f"positions to keep are written OUTPUT[AXIS]=0,5,10-19, not '{text}'")
            low, high = int(first), int(last) if dash else int(first)
            if high < low or high - low > _MOST_TEXT:
                raise UsageError(f"'{part}' in '{text}' is no range of positions")
            found.update(range(low, high + 1))
        return cls(name, int(axis), tuple(sorted(found)))


def words_of(text: str, names: Sequence[str] = ()) -> list[str]:
    """Classes as they are written, ``0,5-9,dog``: one by one. A name may hold a comma or a hyphen if it is known."""
    if text in names:
        return [text]
    found: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        first, dash, last = part.partition("-")
        if part not in names and dash and first.isdecimal() and last.isdecimal():
            if int(last) - int(first) not in range(_MOST_TEXT):
                raise UsageError(f"'{part}' is no range of classes")
            found += map(str, range(int(first), int(last) + 1))
        else:
            found.append(part)
    return found


def class_names(model: Model, file: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The names of a model's classes, in order; from a file (a line for each, or JSON), else from its metadata.

    A metadata property tells them where its value is a list of texts, or maps 0, 1, 2, ... to texts (as the exports of
    Ultralytics have it). Empty where nothing does.

    Raises:
        UsageError: the file cannot be read, or holds no names.
    """
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the names of classes in {os.fspath(file)} cannot be read: {error}") from error
        names = _names(text) or tuple(line.strip() for line in text.splitlines() if line.strip())
        if not names:
            raise UsageError(f"{os.fspath(file)} holds no names of classes; write one in each line")
        return names
    return next((names for _, names in _told(model)), ())


def with_names(draft: Draft, model: Model, kept: Mapping[int, Sequence[int]]) -> list[str]:
    """Let metadata that names classes name those that are kept, by the number of classes; returns which was changed."""
    changed = []
    for key, names in _told(model):
        classes = kept.get(len(names))
        if classes is None:
            continue
        for entry in draft.skeleton.metadata_props:
            if entry.key == key:
                left = [names[index] for index in classes]
                numbered = entry.value.lstrip().startswith("{")
                entry.value = repr(dict(enumerate(left))) if numbered else json.dumps(left)
                changed.append(key)
    return changed


def find_classes(
    model: Model, shapes: Shapes, words: Sequence[int | str], names: Sequence[str] = ()
) -> tuple[Selection, ...]:
    """The positions of the outputs that say these classes; boxes that stand on the same axis stay.

    Raises:
        UsageError: a class that does not exist, a name where none are known, or outputs of which none, or more than one
            in different ways, may say classes.
    """
    names = names or class_names(model)
    places = list(_places(model, shapes, len(names)))
    if not places:
        number = f" of {len(names)} classes" if names else ""
        outputs = ", ".join(f"{v.name} {list(shapes.extents.get(v.name, ()))}" for v in model.graph.output)
        raise UsageError(
            f"no output looks like scores{number} ({outputs}); say which positions to keep: OUTPUT[AXIS]=0,5"
        )
    found = []
    for name, axis, first in places:
        count = shapes.extents[name][axis] - first
        classes = sorted({_number(word, names, count) for word in words})
        if not classes:
            raise UsageError("name at least one class to keep")
        found.append(Selection(name, axis, (*range(first), *(first + index for index in classes))))
    return tuple(found)


def classes_kept(selection: Selection, extent: int, known: int) -> list[int] | None:
    """Which of ``known`` classes a selection keeps; None where the axis does not say classes, or says them partly."""
    first = extent - known
    if first not in _BOXES or not set(range(first)) <= set(selection.positions):
        return None
    return [at - first for at in selection.positions if at >= first]


def _places(model: Model, shapes: Shapes, known: int) -> Iterator[tuple[str, int, int]]:
    """Output, axis, and where on it the classes begin."""
    for value in model.graph.output:
        extents = shapes.extents.get(value.name, ())
        able = [dim for dim in range(1, len(extents)) if extents[dim] > 1 and shapes.is_static(value.name, dim)]
        if known:
            found = [(dim, first) for first in _BOXES for dim in able if extents[dim] == known + first]
        else:
            # Scores [N, C], with axes of extent 1 behind; anything else may say something else.
            flat = len(extents) >= 2 and all(extent == 1 for extent in extents[2:])
            found = [(1, 0)] if flat and 1 in able else []
        if found:
            yield value.name, *found[0]


def _number(word: int | str, names: Sequence[str], count: int) -> int:
    if isinstance(word, str) and word.strip() in names:
        return names.index(word.strip())
    if isinstance(word, str) and not word.strip().isdecimal():
        if not names:
            raise UsageError(f"the file does not name its classes: give the number of '{word}', or a file of names")
        close = get_close_matches(word.strip(), names, _MOST_MEANT, cutoff=0.0)
        raise UsageError(unknown("class", word.strip(), close, "one of the model's classes, such as"))
    index = int(word)
    if not 0 <= index < count:
        raise UsageError(f"there is no class {index}: the model has {count}, counted from 0")
    return index


def _told(model: Model) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in model.skeleton.metadata_props:
        names = _names(entry.value)
        if names:
            yield entry.key, names


def _names(text: str) -> tuple[str, ...]:
    """The names that a text lists, as JSON or as Python writes it; none if it is something else."""
    if len(text) > _MOST_TEXT or not text.lstrip().startswith(("[", "{")):
        return ()
    found = None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text.strip())
            break
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    if isinstance(found, dict):
        numbers = [str(key) for key in found]
        found = list(found.values()) if numbers == [str(index) for index in range(len(found))] else None
    if not isinstance(found, list) or len(found) < 2 or not all(isinstance(name, str) for name in found):
        return ()
    return tuple(found)
