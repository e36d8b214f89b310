"""Files that are complete or what was there before: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """See that moving a file to ``path`` would replace nothing but a file: never a folder, device or pipe.

    Raises:
        OSError: it is something else; ``strerror`` says what to do.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file; give the name of a file")


def temporary(target: Path, cleanup: contextlib.ExitStack) -> Path:
    """A new file beside the target, removed when the block ends (unless it was moved away)."""
    place = _followed(target)
    path = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    cleanup.callback(path.unlink, missing_ok=True)
    # os.open and not tempfile, whose files only their owner may read: the user's umask decides.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return path


def move(source: Path, target: Path) -> None:
    """Move a temporary file to the target; where that is a symbolic link, the link stays."""
    os.replace(source, _followed(target))


def write_text(text: str, path: Path) -> None:
    """Write a text file, atomically. Raises OSError."""
    write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, atomically. Raises OSError."""
    check_regular(path)
    with contextlib.ExitStack() as cleanup:
        partial = temporary(path, cleanup)
        partial.write_bytes(content)
        move(partial, path)


def _followed(path: Path) -> Path:
    """The file that a symbolic link stands for, or the path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
