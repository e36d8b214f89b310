"""Files that are complete or what was there before: written beside their place, then moved there."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and what a killed process leaves behind stays.
    fcntl = None  # type: ignore[assignment]


def check_regular(path: Path) -> None:
    """See that moving a file to ``path`` would replace nothing but a file: never a folder, device or pipe.

    Raises:
        OSError: it is something else; ``strerror`` says what to do.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file; give the name of a file")


def same_place(path: Path, other: Path) -> bool:
    """Whether writing to one of two paths would change the other: links are followed, names compared as files are.

    Names that differ in case alone are one where the file system says so, and where neither file is there to ask.
    """
    there = os.path.exists(path), os.path.exists(other)
    if all(there):
        return os.path.samefile(path, other)
    spelled = os.path.realpath(path), os.path.realpath(other)
    # Where one exists and the other does not, the file system tells them apart.
    return spelled[0] == spelled[1] or (not any(there) and _folded(spelled[0]) == _folded(spelled[1]))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def temporary(target: Path, cleanup: contextlib.ExitStack) -> Path:
    """A new file beside the target, removed when the block ends (unless it was moved away).

    Those that killed processes left behind there are removed first.
    """
    place = _followed(target)
    for left in leftovers(target):
        left.unlink(missing_ok=True)
    while True:
        path = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        cleanup.callback(path.unlink, missing_ok=True)
        # os.open and not tempfile, whose files only their owner may read: the user's umask decides.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        if fcntl is None:
            os.close(descriptor)
            return path
        # Held until the block ends or the process does, whatever ends it: that is how leftovers are known.
        cleanup.callback(os.close, descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return path  # else another process took it for a leftover before it was locked


def leftovers(target: Path) -> list[Path]:
    """The temporary files beside the target of processes that are no more."""
    place = _followed(target)
    name = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}\.tmp")
    try:
        with os.scandir(place.parent) as entries:
            found = [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
    except OSError:
        return []  # What there is to say about the folder, writing to it says.
    return [path for path in found if _is_abandoned(path)]


def _is_abandoned(path: Path) -> bool:
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(descriptor)
    except OSError:
        return False


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """One process at a time, of those that ask; where the file system knows no locks, all at once."""
    with contextlib.ExitStack() as held:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(folder, os.O_RDONLY)
                held.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def move(source: Path, target: Path) -> None:
    """Move a temporary file to the target; where that is a symbolic link, the link stays."""
    os.replace(source, _followed(target))


def settle(path: Path) -> None:
    """See that what was moved to a path is so on disk, where the system can, before anything else is done."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(_followed(path).parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
