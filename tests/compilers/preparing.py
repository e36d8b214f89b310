"""A model as published and pruned, what to run both on, and what onnxruntime makes of it.

    python -m tests.compilers.preparing SOURCE FOLDER

SOURCE is a path, or package:NAME for a model of `tests.zoo.sources`. FOLDER gets original.onnx and pruned.onnx,
inputs.npz, original.npz and pruned.npz (outputs), and prepared.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import onnxprune
from onnxprune.analysis.binding import find_binding
from onnxprune.ir.session import random_inputs
from tests.zoo.measuring import PACKAGE
from tests.zoo.sources import example_inputs, input_shapes, load

REDUCE = 0.4
"""The share of the multiply-accumulates that goes, with all other options as they are by default."""


@dataclass(frozen=True)
class Prepared:
    """Nodes of both files, and of the pruned one those that are new: none of their outputs is in the original.

    What stood in a body of the original (a branch that is always taken) is not new.
    """

    nodes: int
    pruned_nodes: int
    new_nodes: int


def prepare(source: str, folder: Path, largest: float = float("inf")) -> Prepared | None:
    """Prune a model and write what the engines need; nothing of a model whose file has more bytes than ``largest``."""
    origin, _, name = source.partition(":")
    packaged = origin == PACKAGE
    original = onnxprune.load(load(name) if packaged else source)
    original.save(folder / "original.onnx")
    if (folder / "original.onnx").stat().st_size > largest:
        return None
    shapes = input_shapes(name) if packaged else None
    inputs: dict[str, Any] = {}
    if packaged:
        inputs.update(example_inputs(name))
    else:
        inputs.update(random_inputs(original, find_binding(original, None).shapes, seed=0))
    pruned = onnxprune.compress(original, reduce=REDUCE, input_shapes=shapes, certify=False).model
    # In the order of the graph, which some engines go by.
    order = [info.name for info in original.graph.input if info.name in inputs]
    np.savez(folder / "inputs.npz", **{name: inputs[name] for name in order})
    for which, model in {"original": original, "pruned": pruned}.items():
        if which == "pruned":
            model.save(folder / "pruned.onnx")
        session = onnxruntime.InferenceSession(folder / f"{which}.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        np.savez(folder / f"{which}.npz", **dict(zip(names, session.run(names, inputs), strict=True)))
    before = onnx.load(folder / "original.onnx", load_external_data=False)
    after = onnx.load(folder / "pruned.onnx", load_external_data=False)
    known = set(_outputs(before.graph))
    new = [node for node in after.graph.node if not known.intersection(node.output)]
    return Prepared(len(before.graph.node), len(after.graph.node), len(new))


def _outputs(graph: onnx.GraphProto) -> Iterator[str]:
    """What nodes compute, those of bodies too."""
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _outputs(body)


def main() -> int:
    """Prepare the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("source", help="a path, or package:NAME")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--largest", type=float, default=float("inf"), help="bytes; larger models are left alone")
    options = parser.parse_args()
    found = prepare(options.source, options.folder, options.largest)
    if found is not None:
        (options.folder / "prepared.json").write_text(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
