"""Times of layers on disk: one small file per machine and layer signature, so that nothing is measured twice."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.ir.files import write_text
from onnxprune.latency.layers import LayerCase, Widths

_VERSION = 1


@dataclass(frozen=True)
class Cache:
    """Seconds by signature and widths, for one machine (its ``identity``). Files that are damaged count as absent."""

    folder: Path
    identity: Mapping[str, str]

    def read(self, case: LayerCase) -> dict[Widths, float]:
        """What is known of a layer. Warns where a file is damaged."""
        path = self._path(case)
        if not path.exists():
            return {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != _VERSION or data["signature"] != case.signature:
                return {}
            found = {tuple(int(w) for w in key.split("x") if w): float(t) for key, t in data["seconds"].items()}
            if not all(math.isfinite(t) and t >= 0 for t in found.values()):
                raise ValueError("a time is no number of seconds")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is damaged ({error}); the layer is measured again", stacklevel=2)
            return {}
        return found

    def write(self, case: LayerCase, seconds: Mapping[Widths, float]) -> None:
        """Add what was measured of a layer. Warns where it cannot be written; nothing is lost but time."""
        path = self._path(case)
        known = {**self.read(case), **seconds}
        data = {
            "version": _VERSION,
            "machine": dict(self.identity),
            "signature": case.signature,
            "seconds": {"x".join(map(str, widths)): time for widths, time in sorted(known.items())},
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(data, indent=1) + "\n", path)
        except OSError as error:
            warnings.warn(f"the times of layers cannot be kept in {path.parent}: {error.strerror}", stacklevel=2)

    def _path(self, case: LayerCase) -> Path:
        machine = hashlib.sha256(json.dumps(sorted(self.identity.items())).encode()).hexdigest()[:16]
        return self.folder / "latency" / machine / f"{case.key}.json"
