"""The figures that the project has to reach; needs the exports of tests/zoo/export_zoo.py and a quiet machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import end_to_end, macs, speed

EXPORTS = Path(os.environ.get("ONNXPRUNE_ZOO_EXPORTS", "no folder is named"))
REPEAT = 7

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not EXPORTS.is_dir(), reason="ONNXPRUNE_ZOO_EXPORTS does not name the folder of exports"),
]


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", speed.files(EXPORTS), ids=name_of)
def test_faster_than_the_peers(path: Path) -> None:
    result = speed.measure(path, REPEAT)
    assert result.good_enough, speed.table([result])


@pytest.mark.parametrize("path", speed.files(EXPORTS), ids=name_of)
def test_the_command_takes_little_more_than_loading_and_saving(path: Path) -> None:
    result = end_to_end.measure(path, 3)
    assert result.good_enough, end_to_end.table([result])


@pytest.mark.parametrize("path", macs.files(EXPORTS), ids=lambda path: path.stem)
def test_no_more_is_left_than_torch_pruning_leaves(path: Path) -> None:
    result = macs.measure(path)
    assert result.good_enough, macs.table([result])
