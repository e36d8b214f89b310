"""A folder with the parts of a model and their manifest: whole, or not there."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from onnx import TensorProto, ValueInfoProto

from onnxprune.errors import UsageError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.model import Model

FORMAT, VERSION = "onnxprune.split", 1
MANIFEST = "manifest.json"


def check_folder(folder: Path) -> None:
    """Refuse a folder that parts cannot be written to. Raises UsageError."""
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there; give another name, or remove it first")
    if not folder.parent.is_dir():
        raise UsageError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")


def names_of(count: int) -> tuple[str, ...]:
    """What the files of so many parts are called."""
    return ("head.onnx", "tail.onnx") if count == 2 else tuple(f"part{at}.onnx" for at in range(1, count + 1))


def write_split(folder: Path, original: Model, parts: Sequence[Model], told: Mapping[str, Any]) -> dict[str, Any]:
    """Write parts and their manifest into a new folder, which appears when all of it is there.

    Args:
        folder: the new one.
        original: the model that they are parts of.
        parts: in the order in which they run.
        told: what else the manifest is to say: proof, costs, how tensors cross.

    Returns:
        The manifest.

    Raises:
        UsageError: the folder is there, or cannot be written.
        ModelError: a part cannot be written.
    """
    check_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch, folder.name)
            made.mkdir()
            entries = []
            for name, part in zip(names_of(len(parts)), parts, strict=True):
                part.save(made / name)
                entries.append(_entry(made / name, part))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "model": {
                    "file": None if original.path is None else original.path.name,
                    "digest": model_digest(original),
                    "inputs": [_value(value) for value in original.graph.input if value.name not in original.weights],
                    "outputs": [_value(value) for value in original.graph.output],
                },
                "parts": entries,
                **told,
            }
            (made / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            made.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return manifest


def schema() -> dict[str, Any]:
    """The JSON Schema of manifests."""
    found: dict[str, Any] = json.loads(files("onnxprune.splitting").joinpath("manifest.schema.json").read_text("utf-8"))
    return found


def _entry(path: Path, part: Model) -> dict[str, Any]:
    return {
        "file": path.name,
        "bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": [_value(value) for value in part.graph.input if value.name not in part.weights],
        "outputs": [_value(value) for value in part.graph.output],
    }


def _value(value: ValueInfoProto) -> dict[str, Any]:
    """Name, type and shape of an input or output; a symbol where an extent is open, null where it is not said."""
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = [d.dim_param or None if not d.HasField("dim_value") else d.dim_value for d in kind.shape.dim]
    name = TensorProto.DataType.Name(kind.elem_type) if kind.elem_type else "UNDEFINED"
    return {"name": value.name, "type": name, "shape": shape}
