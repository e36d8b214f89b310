"""What runtimes share that convert a model by a command into a form of their own first."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from onnxprune.ir.model import load
from onnxprune.ir.runtimes import Shapes
from onnxprune.ir.shapes import infer_shapes


def beside(name: str) -> str:
    """A command that is installed with the packages of this interpreter."""
    return str(Path(sys.executable).with_name(name))


def command(words: Sequence[str], folder: Path) -> None:
    """Run a command in a folder. Raises RuntimeError where it fails, with the last error that it names."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        named = [line for line in lines if re.match(r"\w+(Error|Exception)\b", line)] or lines
        raise RuntimeError(named[-1] if named else f"{Path(words[0]).name} ends with {done.returncode}")


def own_copy(source: Path | bytes, folder: Path) -> Path:
    """The model in a folder where a converter may write what it likes beside it."""
    path = folder / "model.onnx"
    if isinstance(source, bytes):
        path.write_bytes(source)
    else:
        onnx.save(onnx.load(source), path)
    return path


def output_shapes(path: Path, shapes: Shapes) -> Mapping[str, tuple[int, ...]]:
    """The shapes that the graph's outputs have for these inputs, in its order."""
    model = load(path)
    extents = infer_shapes(model, shapes).extents
    return {value.name: extents[value.name] for value in model.graph.output}
