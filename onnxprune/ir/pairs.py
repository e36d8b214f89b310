"""A model file and the data file beside it that is its own: what it is called, and when it goes.

``<name>.<hash>.data`` holds the external data of the model ``<name>``, and the hash is that of its contents.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Collection
from pathlib import Path

from onnxprune.ir.files import same_place

DIGEST_SIZE = 8
"""Bytes of the hash in a name."""
_SUFFIXES = (".onnx", ".ort", ".pb")
"""What models are called."""


def unnamed(model: Path) -> Path:
    """What a data file is called before its contents are known."""
    return model.with_name(f"{model.name}.data")


def named(model: Path, digest: str) -> Path:
    """The data file of a model with this hash of its contents."""
    return model.with_name(f"{model.name}.{digest}.data")


def may_be_data_of(path: Path, model: Path) -> bool:
    """Whether a path has a name that the data of a model may get."""
    return _pattern(model).fullmatch(path.name) is not None and same_place(path.parent, model.parent)


def remove_orphans(model: Path, sources: Collection[Path], temporary: Path) -> None:
    """Remove the data files of a model that are of no use, as far as can be seen.

    They are when neither the model speaks of them nor another file beside it that may be a model or was one (but for
    the temporary file that did not become the model), and when they are no sources.
    """
    pattern = _pattern(model)
    with contextlib.suppress(OSError):
        beside = sorted(path for path in model.parent.iterdir() if path.is_file())
        owned = [path for path in beside if pattern.fullmatch(path.name)]
        others = (path for path in beside if path not in (*owned, temporary))
        readers = [model, *(path for path in others if _may_be_model(path, model))]
        for path in owned:
            used = any(same_place(path, source) for source in sources)
            if not used and not any(_speaks_of(reader, path.name) for reader in readers):
                path.unlink()


def _pattern(model: Path) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(model.name)}\.[0-9a-f]{{{2 * DIGEST_SIZE}}}\.data", re.IGNORECASE)


def _may_be_model(path: Path, model: Path) -> bool:
    return path.suffix.lower() in (*_SUFFIXES, model.suffix) or model.stem in path.name


def _speaks_of(file: Path, name: str) -> bool:
    """Whether a name is in a file, or that cannot be told."""
    try:
        with open(file, "rb") as opened:
            if not os.fstat(opened.fileno()).st_size:
                return False
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(os.fsencode(name)) >= 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
