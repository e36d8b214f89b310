"""Five users, each from an empty folder and by the tutorial alone: its blocks are run, and end as it says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.walks.walking import TUTORIALS, steps, take, unmarked

_NEEDS = {"detector": ("rapidocr_onnxruntime", "sklearn"), "pytorch": ("torch",)}
_LEAVES = {
    "keras": {"smaller.onnx", "report.html"},
    "pytorch": {"pruned.onnx", "trained.onnx"},
    "detector": {"smaller.onnx"},
    "compiler": {"plan.json", "smaller.onnx", "proof.json", "piped.onnx"},
    "tradeoff": {"results.sqlite", "best.onnx", "report.html"},
}
_LEAVES_NOT = {"bad.onnx", "impossible.onnx", "none.onnx"}


def test_every_tutorial_is_walked_and_every_block_of_it_is_marked() -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in TUTORIALS.glob("*.md")}
    assert pages.keys() == _LEAVES.keys()
    assert {name: unmarked(page) for name, page in pages.items()} == dict.fromkeys(pages, 0)
    assert all(list(steps(page)) for page in pages.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", _LEAVES)
def test_the_walk(name: str, tmp_path: Path) -> None:
    for module in _NEEDS.get(name, ()):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path / "empty"
    folder.mkdir()
    for step in steps((TUTORIALS / f"{name}.md").read_text(encoding="utf-8")):
        done = take(step, folder)
        assert done.returncode == step.code, f"{step.text}\n{done.stdout}\n{done.stderr}"
    left = {path.name for path in folder.iterdir()}
    assert _LEAVES[name] <= left
    assert not left & _LEAVES_NOT
