"""The path of candidates with their bounds, as the page shows what a file tells of its promise."""

from __future__ import annotations

import re
from pathlib import Path

import onnxprune
from onnxprune.pruning.history import promise_told
from tests.cli.support import done
from tests.pruning.test_promising import images

DENSE = Path("models/dense_dynamo.onnx")


def test_the_page_lists_candidates_with_their_bounds(tmp_path: Path) -> None:
    result = onnxprune.compress(DENSE, calibration=images(), max_loss=0.2, criterion="l2", compensate="none")
    result.save(tmp_path / "small.onnx")
    done("report", DENSE, tmp_path / "small.onnx", "-o", tmp_path / "page.html", "--no-bench")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    told = promise_told(result.model)
    assert told is not None
    rows = re.findall(
        r'<th scope="row">(--reduce [^<]*)</th><td class="number">([^<]*)</td><td[^>]*>([^<]*)</td>', page
    )
    assert [row[0].removesuffix(" (taken)") for row in rows] == [name for name, _, _ in told.path]
    assert [row[0] for row in rows if "(taken)" in row[0]] == [f"{told.chosen} (taken)"]
    upper = next(upper for name, _, upper in told.path if name == told.chosen)
    assert any(row[2] == f"{100 * (upper or 0):.2f} %, kept" for row in rows)
