"""What the study calls equal and what worse, and that a fault is seen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from .report import page
from .rows import LIMIT, Row, read, write
from .worker import difference, place, said

NAN = math.nan


def row(original: str | float, pruned: str | float, model: str = "m", new: int = 0) -> Row:
    """What an engine said, as an error or a difference."""
    errors = [answer if isinstance(answer, str) else "" for answer in (original, pruned)]
    gaps = [NAN if isinstance(answer, str) else answer for answer in (original, pruned)]
    return Row("models", model, "tvm", "1", 9, 9, new, errors[0], errors[1], gaps[0], gaps[1])


@pytest.mark.parametrize(
    ("original", "pruned", "equal", "worse"),
    [
        (1e-6, 1e-4, True, False),
        ("no", "no, too", True, False),
        (0.5, math.inf, True, False),
        (1e-6, "no", False, True),
        (1e-6, 2e-3, False, True),
        (1e-6, math.inf, False, True),
        (0.5, "no", False, True),
        ("no", 1e-6, False, False),
        (1e-6, f"{LIMIT} 9 s", False, False),
    ],
)
def test_worse_is_what_is_taken_and_then_not(
    original: str | float, pruned: str | float, equal: bool, worse: bool
) -> None:
    found = row(original, pruned)
    assert (found.equal, found.worse) == (equal, worse)


def test_the_page_counts_and_names_what_is_worse(tmp_path: Path) -> None:
    rows = [row(0.0, 1e-6, "good"), row("Reshape", "Reshape", "refused"), row(0.0, "a Where too many", "bad", new=3)]
    write(tmp_path / "rows.csv", rows)
    text = page(read(tmp_path / "rows.csv"))
    assert "| TVM (Relax) | 1 | 3 | 1 | 1 | 0 | 0 | 1 | 1e-06 |" in text
    assert "- tvm, bad: a Where too many" in text
    assert "adds no node to 2 of 3 models (67%), and at most 3" in text
    assert "`Reshape` (refused)" in text
    assert "Not asked: OpenVINO" in text


def test_outputs_are_compared_by_their_spread() -> None:
    wanted = np.array([[1.0, 3.0]])
    assert difference([wanted], [wanted[0]]) == 0  # an engine without batches
    assert difference([wanted], [wanted + 0.1]) == pytest.approx(0.05)
    image = np.arange(24.0).reshape(1, 2, 3, 4)
    assert difference([image], [np.moveaxis(image, 1, -1)]) == 0
    for wrong in ([], [wanted.T[:1]], [np.full_like(wanted, np.nan)], [wanted, wanted]):
        assert difference([wanted], wrong) == math.inf
    assert difference([np.full(3, 5.0)], [np.full(3, 5.5)]) == pytest.approx(0.1)


def test_outputs_of_litert_stand_in_their_order() -> None:
    names = ("PartitionedCall:1", "PartitionedCall:0", "Identity_2", "Identity", "StatefulPartitionedCall:10")
    assert [place(name) for name in names] == [1, 0, 2, 0, 10]


def test_of_an_error_the_telling_line_is_kept() -> None:
    assert said(ValueError("# metadata\nsome Error: x\nmore")) == "ValueError: some Error: x"
    assert said(RuntimeError("Error code: 1\n/tmp/a.mlir:4:5: error: no such op")) == "RuntimeError: no such op"
    assert said(RuntimeError("first\nStack backtrace:\n Error in f")) == "RuntimeError: first"
