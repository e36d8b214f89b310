"""How much memory there is to work with."""

from __future__ import annotations

import os
from pathlib import Path

#: Taken as free where the system does not tell.
_UNKNOWN = 4 << 30


def free_memory() -> int:
    """Bytes that this process can still take without another one's going: what the system says, and its limits."""
    found = [_available()]
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        found.append(max(limit - used, 0))
    return min(found)


def memory_budget(memory: int | None) -> int:
    """``memory`` bytes, or half of what is free now."""
    return free_memory() // 2 if memory is None else memory


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        # What a system without /proc tells: all of its memory, of which half is taken to be free.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
