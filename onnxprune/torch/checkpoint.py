"""Checkpoint files: complete or not there, read as plain data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onnxprune.errors import CheckpointError
from onnxprune.ir.files import check_regular, move, temporary


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data, atomically: a kill leaves the file before. Raises CheckpointError."""
    try:
        check_regular(path)
        with contextlib.ExitStack() as cleanup:
            partial = temporary(path, cleanup)
            with partial.open("wb") as file:
                torch.save(dict(content), file)
                file.flush()
                os.fsync(file.fileno())
            move(partial, path)
    except OSError as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror or error}") from error


def read_checkpoint(path: Path, format: str, of: str, instead: str) -> dict[str, Any]:
    """What was written.

    Args:
        path: the file.
        format: what its "format" has to say.
        of: what it is a checkpoint of, for messages.
        instead: what to do without it, for messages.

    Raises:
        CheckpointError: it is missing, damaged or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}; {instead}") from None
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise CheckpointError(f"{path} is no checkpoint, or damaged; {instead}") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise CheckpointError(f"{path} is no checkpoint of {of}; {instead}")
    return content
