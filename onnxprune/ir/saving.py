"""Writing a model: streamed tensor by tensor, atomically, with external data where they belong.

A model with external data is two files, and no system moves two at once. So the data file is named after its contents
and moved first, the model file last, and the data of the model that was there goes after that: whenever the process is
killed, the path holds the old pair or the new one.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import math
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.ir import pairs
from onnxprune.ir.files import check_regular, in_turn, move, same_place, settle, temporary
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
    sources: Collection[Path] = (),
    *,
    original: Path | None = None,
    overwrite: bool = False,
    limit: int = PROTOBUF_LIMIT,
    external_data: float | None = None,
) -> None:
    """Write a model to ``path`` and, where needed, its external data to ``<name>.<hash>.data`` beside it.

    No more than one tensor is in memory at a time, beside what the caller holds.

    Args:
        skeleton: the model without initialisers.
        weights: the initialisers, in order.
        path: the file to write.
        sources: files that hold what is being saved; they are neither replaced nor removed.
        original: the one of them that is a model file, the others being its external data.
        overwrite: allow ``path`` to replace that one.
        limit: longest model file in bytes; beyond it, weights become external data.
        external_data: make all weights external, in files of at most so many bytes (more, where one weight has more).

    Raises:
        ModelError: the file is a source, or cannot be written.
    """
    outside = _external_weights(skeleton, weights, limit if external_data is None else 0)
    _check_target(path, sources, original, overwrite)
    try:
        with contextlib.ExitStack() as cleanup:
            places: dict[str, tuple[str, int]] = {}
            files: list[tuple[Path, Path]] = []
            if outside:
                _check_name(path)
            for shard in _shards(outside, math.inf if external_data is None else external_data):
                data_file = temporary(pairs.unnamed(path), cleanup)
                offsets, digest = _write_data(data_file, shard)
                data = pairs.named(path, digest)
                files.append((data_file, data))
                places.update((name, (data.name, offset)) for name, offset in offsets.items())
            placed = [weight.placed(*places[weight.name]) if weight.name in places else weight for weight in weights]
            model_file = temporary(path, cleanup)
            _write(model_file, _encode(skeleton, placed))
            cleanup.enter_context(in_turn(path.parent))
            # Data without a model go in the end, be they those of the model that was there or, if its successor does
            # not get there, those that were to come.
            cleanup.callback(pairs.remove_orphans, path, sources, model_file)
            for data_file, data in files:
                _place(data_file, data)
            move(model_file, path)
            settle(path)
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


def _shards(weights: Iterable[Weight], most: float) -> Iterator[list[Weight]]:
    """The weights in their order, in parts that fit into files of this size; a larger weight has one for itself."""
    shard: list[Weight] = []
    end = 0
    for weight in weights:
        start = end + -end % _ALIGNMENT
        if shard and start + weight.nbytes > most:
            yield shard
            shard, start = [], 0
        shard.append(weight)
        end = start + weight.nbytes
    if shard:
        yield shard


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


def _write_data(path: Path, weights: Iterable[Weight]) -> tuple[dict[str, int], str]:
    """Write external data; returns the offset of each weight, and a hash of what lies where."""
    offsets = {}
    digest = hashlib.sha256()
    with open(path, "wb", buffering=1 << 20) as file:
        for weight in weights:
            position = file.tell()
            offsets[weight.name] = position + -position % _ALIGNMENT
            file.write(bytes(-position % _ALIGNMENT))
            file.write(weight.raw_bytes())
            # Whoever tells of the weights has hashed them already; all bytes together would be hashed again.
            digest.update(f"{offsets[weight.name]} {weight.nbytes} {weight.elem_type} ".encode() + weight.digest)
        file.flush()
        os.fsync(file.fileno())
    return offsets, digest.digest()[: pairs.DIGEST_SIZE].hex()


def _place(written: Path, data: Path) -> None:
    """Move external data to their place. Raises OSError."""
    if os.path.lexists(data):
        if data.is_file() and filecmp.cmp(written, data, shallow=False):
            return  # Whoever wrote it, it is what is wanted.
        raise FileExistsError(0, f"{data} is something else, though its name says what it holds; remove it")
    os.replace(written, data)
    settle(data)


def _check_target(path: Path, sources: Iterable[Path], original: Path | None, overwrite: bool) -> None:
    """Refuse to replace what is no file (a folder, a device) or what holds the model being saved."""
    try:
        check_regular(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror}") from error
    for source in sources:
        if not same_place(source, path) or (source == original and overwrite):
            continue
        if source != original:
            raise ModelError(f"{path} holds what the model is made from; give another name")
        raise ModelError(
            f"{path} is the file that the model was loaded from; give another name, "
            "or allow it with overwrite_input=True (on the command line: --force)"
        )


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            f"cannot write {str(path)!r}: the model has to name its external data, and that name is not UTF-8"
        ) from error
