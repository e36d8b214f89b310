"""Work that is light to send to other processes: it imports nothing of onnxprune."""

from __future__ import annotations

import os
import signal


def double(task: int) -> int:
    """Twice the task."""
    return 2 * task


def double_or_die(task: int) -> int:
    """Twice the task, but three kills its process."""
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * task
