"""A process that is given hostile files, one after the other, and says what became of each.

It is a process of its own so that a crash, a hang, or memory without end is an answer, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import onnxprune
from onnxprune.data import InputSpec, read_data
from onnxprune.errors import OnnxPruneError
from onnxprune.exploration import merge, read_results
from onnxprune.exploration.picking import Limits, choose, setting_of
from onnxprune.ir.plain import parse
from tests.fuzzing import originals

_MEMORY = 16 << 30
"""Bytes of address space; PyTorch and onnxruntime reserve much of it."""


def model(path: Path) -> None:
    """Read, understand, prune, write and read again."""
    out = path.with_name("out.onnx")
    loaded = onnxprune.load(path)
    with contextlib.suppress(OnnxPruneError):
        loaded.save(out)
        onnxprune.load(out)
    analysis = onnxprune.analyze(loaded)
    onnxprune.plan(analysis, channels=0.5)
    pruned = onnxprune.compress(loaded, channels=0.5, certify=bool(os.environ.get("ONNXPRUNE_FUZZ_SECONDS")))
    pruned.model.save(out)
    onnxprune.load(out)


def plan(path: Path) -> None:
    """Read, write again, and apply."""
    found = onnxprune.Plan.load(path)
    found.save(path.with_name("again.json"))
    assert onnxprune.Plan.load(path.with_name("again.json")) == found
    onnxprune.apply(originals.small(), found)


def table(path: Path) -> None:
    """Read, choose, draw and join."""
    from onnxprune.report.tradeoff import tradeoff

    found = read_results(path)
    found.to_dict()
    with contextlib.suppress(OnnxPruneError):
        choose(found, Limits(max_params=150.0))
    for run in found.runs:
        with contextlib.suppress(OnnxPruneError):
            setting_of(parse(run.settings)).to_dict()
        with contextlib.suppress(OnnxPruneError):
            found.plan(run.key)
    if found.done:
        found.pareto()
        tradeoff(found, onnxprune.analyze(originals.small()))
    assert len(merge([path], path.with_name("joined")).runs) == len(found.runs)


def npz(path: Path) -> None:
    """Read, and go through all samples."""
    inputs = (InputSpec("x", (None, 1, 4, 4), np.dtype(np.float32)),)
    data = read_data(f"{path}?holdout=0.25", inputs)
    for batches in (data.train, data.test):
        for batch in () if batches is None else batches.iterate(4):
            assert batch.inputs["x"].dtype == np.float32


def checkpoint(path: Path) -> None:
    """Read."""
    from onnxprune.torch.training import checkpoints

    checkpoints.load(path, originals.IDENTITY)


PROPERTIES: dict[str, Callable[[Path], None]] = {
    "model": model,
    "plan": plan,
    "table": table,
    "npz": npz,
    "checkpoint": checkpoint,
}
_MADE = {"model": {"out.onnx"}, "plan": {"again.json"}, "table": {"joined"}}


def answer(kind: str, content: bytes) -> dict[str, Any]:
    """What becomes of a file: accepted, or refused in words; ``fault`` is what should not have happened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.npz"
        path.write_bytes(content)
        said, fault = "", ""
        try:
            PROPERTIES[kind](path)
        except OnnxPruneError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException:
            fault = traceback.format_exc()
        left = set(os.listdir(folder)) - {path.name} - _MADE.get(kind, set())
        if left:
            fault += f"left behind: {sorted(left)}"
        if path.read_bytes() != content:
            fault += "the file was changed"
        return {"said": said, "fault": fault}


def frames(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Kind and content of every request: two lengths, then both."""
    while header := stream.read(8):
        name, size = struct.unpack("<II", header)
        yield stream.read(name).decode(), stream.read(size)


def main() -> None:
    """Answer until there are no more requests."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for kind, content in frames(sys.stdin.buffer):
        print(json.dumps(answer(kind, content)), file=out, flush=True)


if __name__ == "__main__":
    main()
