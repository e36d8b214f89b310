"""Where what took long to compute is kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_folder() -> Path:
    """Where the user's caches are: ``ONNXPRUNE_CACHE`` if it is set, else the system's habit."""
    if os.environ.get("ONNXPRUNE_CACHE"):
        return Path(os.environ["ONNXPRUNE_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxprune"
