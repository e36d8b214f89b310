"""What the study of widths tells of times that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from .widths import WIDTHS, read, table, wasted, write


def test_a_staircase_is_seen_at_its_block_and_a_line_nowhere(tmp_path: Path) -> None:
    line = [1e-6 * c for c in WIDTHS]
    stairs = [1e-6 * math.ceil(c / 16) for c in WIDTHS]
    assert wasted(line, 16) == pytest.approx(0)
    assert wasted(stairs, 16) > wasted(stairs, 8) > 0.01
    assert wasted(stairs, 16) > wasted(stairs, 32)
    write(tmp_path / "w.csv", {("a 1", 3): line, ("b 2", 1): stairs})
    assert read(tmp_path / "w.csv") == {("a 1", 3): pytest.approx(line), ("b 2", 1): pytest.approx(stairs, rel=1e-3)}
    assert "| a 1 | 3×3 | " in table(read(tmp_path / "w.csv"))
