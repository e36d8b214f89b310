"""Writing a model: streamed tensor by tensor, atomically, with external data where they belong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.ir.files import check_regular, move, temporary
from onnxprune.ir.weights import Weight
from onnxprune.ir.wire import Buffer, field_prefix, fields

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number

PROTOBUF_LIMIT = 2**31 - 1
"""Longest message, in bytes, that protobuf parses."""
_SMALLEST_EXTERNAL = 1024
"""Bytes; smaller tensors are shape operands and the like, which runtimes want inside the model."""
_ALIGNMENT = 4096
"""Offsets are multiples of a page, so that runtimes can map the tensors."""


def save(
    skeleton: ModelProto,
    weights: Collection[Weight],
    path: Path,
    protected: Iterable[Path],
    limit: int = PROTOBUF_LIMIT,
) -> None:
    """Write a model to ``path`` and, where needed, its external data to ``<name>.data`` beside it.

    Args:
        skeleton: the model without initialisers.
        weights: the initialisers, in order.
        path: the file to write.
        protected: files that must not be replaced.
        limit: longest model file in bytes; beyond it, weights become external data.

    Raises:
        ModelError: the file is protected or cannot be written.
    """
    data_path = path.with_name(f"{path.name}.data")
    outside = _external_weights(skeleton, weights, limit)
    targets = [path, data_path] if outside else [path]
    for target in targets:
        _check_target(target, protected)
    try:
        with contextlib.ExitStack() as cleanup:
            offsets: dict[str, int] = {}
            replacements = []
            if outside:
                written = temporary(data_path, cleanup)
                offsets = _write_data(written, outside)
                replacements.append((written, data_path))
            placed = [
                weight.placed(data_path.name, offsets[weight.name]) if weight.name in offsets else weight
                for weight in weights
            ]
            written = temporary(path, cleanup)
            _write(written, _encode(skeleton, placed))
            replacements.append((written, path))
            for written, target in replacements:
                move(written, target)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}; nothing was changed") from error


def file_size(skeleton: ModelProto, weights: Iterable[Weight]) -> int:
    """Bytes that the model takes on disk, with everything inside one file."""
    initializers = sum(_field_size(_INITIALIZER, weight.encoded_size) for weight in weights)
    inside = skeleton.graph.ByteSize()
    rest = skeleton.ByteSize() - _field_size(_GRAPH, inside)
    return rest + _field_size(_GRAPH, inside + initializers)


def _field_size(number: int, length: int) -> int:
    return len(field_prefix(number, length)) + length


def _external_weights(skeleton: ModelProto, weights: Collection[Weight], limit: int) -> list[Weight]:
    """The weights that belong in external data: those that came so, or all when one file cannot hold them."""
    everything = file_size(skeleton, weights) > limit
    return [
        weight
        for weight in weights
        if (everything or weight.source is not None)
        and weight.nbytes >= _SMALLEST_EXTERNAL
        and weight.elem_type != TensorProto.STRING
    ]


def _encode(skeleton: ModelProto, weights: Collection[Weight]) -> Iterator[Buffer]:
    """The serialised model in pieces, its fields in the order that protobuf writes them."""
    outer = memoryview(skeleton.SerializeToString())
    start, graph_start, graph_end = next(
        (tag, value, end) for number, _, tag, value, end in fields(outer, 0, len(outer)) if number == _GRAPH
    )
    split = next(
        (tag for number, _, tag, _, _ in fields(outer, graph_start, graph_end) if number > _INITIALIZER),
        graph_end,
    )
    length = sum(_field_size(_INITIALIZER, weight.encoded_size) for weight in weights) + graph_end - graph_start
    yield outer[:start]
    yield field_prefix(_GRAPH, length)
    yield outer[graph_start:split]
    for weight in weights:
        yield field_prefix(_INITIALIZER, weight.encoded_size)
        yield from weight.chunks()
    yield outer[split:]


def _write(path: Path, pieces: Iterable[Buffer]) -> None:
    with open(path, "wb", buffering=1 << 20) as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def _write_data(path: Path, weights: Iterable[Weight]) -> dict[str, int]:
    """Write external data; returns the offset of each weight."""
    offsets = {}
    with open(path, "wb", buffering=1 << 20) as file:
        for weight in weights:
            position = file.tell()
            offsets[weight.name] = position + -position % _ALIGNMENT
            file.write(bytes(-position % _ALIGNMENT))
            file.write(weight.raw_bytes())
        file.flush()
        os.fsync(file.fileno())
    return offsets


def _check_target(path: Path, protected: Iterable[Path]) -> None:
    """Refuse to replace what is no file (a folder, a device) or what holds the model being saved."""
    try:
        check_regular(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror}") from error
    if not path.exists():
        return
    for source in protected:
        if source.exists() and os.path.samefile(source, path):
            raise ModelError(
                f"{path} is the file that the model was loaded from; give another name, "
                "or allow it with overwrite_input=True (on the command line: --force)"
            )
