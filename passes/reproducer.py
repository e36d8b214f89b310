"""What reproduces the failure of a pass: the model before it, cut down as far as time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from onnxprune.errors import OnnxPruneError
from onnxprune.ir.model import Model
from onnxprune.ir.protos import captured_names, declare
from onnxprune.ir.shapes import Shapes, infer_shapes
from onnxprune.passes.base import Pass
from onnxprune.passes.manager import Check, PassManager

_SECONDS = 60.0


def reduced(model: Model, step: Pass, check: Check = Check.NONE, seconds: float = _SECONDS) -> Model:
    """The smallest run of nodes found on which a pass fails as it does on the whole model; the model, if it does not.

    Halves are cut off at both ends as long as the rest fails, then smaller parts.

    Args:
        model: what the pass fails on.
        step: the pass.
        check: what is checked after it.
        seconds: no new attempt begins after this time.
    """
    end = time.monotonic() + seconds
    failure = _failure(model, step, check)
    try:
        shapes = infer_shapes(model)
    except OnnxPruneError:
        return model
    if failure is None:
        return model
    best, first, last = model, 0, len(model.graph.node)
    part = (last - first) // 2
    while part:
        for start, stop in ((first + part, last), (first, last - part)):
            if start >= stop or time.monotonic() > end:
                continue
            smaller = excerpt(model, shapes, start, stop)
            if _failure(smaller, step, check) is failure:
                best, first, last = smaller, start, stop
                break
        else:
            part //= 2
        if time.monotonic() > end:
            break
    return best


def write(model: Model, pipeline: str, folder: Path) -> tuple[Path, Path]:
    """Write a model and a pipeline that fails on it; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "reproducer.onnx", folder / "reproducer.txt"
    model.save(paths[0])
    paths[1].write_text(pipeline + "\n", encoding="utf-8")
    return paths


def excerpt(model: Model, shapes: Shapes, first: int, last: int) -> Model:
    """The nodes from ``first`` up to ``last`` as a model: what they read of others are its inputs."""
    nodes = model.graph.node[first:last]
    made = {name: None for node in nodes for name in node.output if name}
    read = {name: None for node in nodes for name in _reads(node)}
    later = {name for node in model.graph.node[last:] for name in _reads(node)}
    outputs = [n for n in made if n not in read or n in later or any(n == o.name for o in model.graph.output)]
    inputs = [name for name in read if name not in made and name not in model.weights]
    weights = {name: model.weights[name] for name in read if name in model.weights}
    return model.piece(nodes, map(_info(model, shapes), inputs), map(_info(model, shapes), outputs), weights)


def _info(model: Model, shapes: Shapes) -> Callable[[str], onnx.ValueInfoProto]:
    """Makes the declaration of a tensor: as the graph has it, else of the shape that is known."""
    declared = {info.name: info for info in (*model.graph.input, *model.graph.output)}

    def of(name: str) -> onnx.ValueInfoProto:
        if name in declared:
            return declared[name]
        info = onnx.ValueInfoProto()
        if name in shapes.extents:
            declare(info, name, shapes.elem_types.get(name, onnx.TensorProto.FLOAT), shapes.extents[name])
        info.name = name
        return info

    return of


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    yield from captured_names(node)


def _failure(model: Model, step: Pass, check: Check) -> type[BaseException] | None:
    try:
        PassManager([step], check).run(model)
    except OnnxPruneError as error:
        return type(error)
    return None
