"""The examples run as they stand: scripts in a process of their own, notebooks in a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {
    "own_data": "answers kept",
    "own_operator": "Certificate passed",
    "own_training": "write_back (28 weights changed)",
    "own_pipeline": '"tensors": 81',
}
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def test_every_example_is_run_and_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys()
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in page for path in (*EXAMPLES.glob("*.py"), *NOTEBOOKS))
    assert len(NOTEBOOKS) == 4


def test_notebooks_hold_no_outputs() -> None:
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name


@pytest.mark.parametrize(
    "name",
    [
        "own_operator",
        "own_pipeline",
        pytest.param("own_data", marks=pytest.mark.slow),
        pytest.param("own_training", marks=pytest.mark.slow),
    ],
)
def test_the_script_runs(name: str, tmp_path: Path) -> None:
    if name == "own_training":
        pytest.importorskip("torch")
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert SCRIPTS[name] in done.stdout


def test_the_plugin_works_on_the_command_line(tmp_path: Path) -> None:
    plugin = EXAMPLES / "own_operator.py"
    subprocess.run([sys.executable, str(plugin)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    words = ["prune", "regions.onnx", "-o", "s.onnx", "--channels", "0.5", "--no-bench", "--plugin", str(plugin)]
    subprocess.run([sys.executable, "-m", "onnxprune", *words], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "s.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    if path.stem == "4_keras" and find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", ())]
    assert any("text/html" in output.get("data", {}) for output in shown)
    if folder := os.environ.get("ONNXPRUNE_NOTEBOOKS"):  # to look at
        nbformat.write(book, Path(folder) / path.name)
