"""onnxprune makes ONNX models smaller: complexity-driven filter pruning on the graph, with a certificate.

The main functions: :func:`load`, :func:`normalize`, :func:`analyze`, :func:`plan`, :func:`apply`, :func:`verify`
and :func:`compress`, which does it all. ``__init__.pyi`` lists all names; they are imported on first use, so that the
command line starts fast.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

_HERE = Path(__file__).parent


class _Checkout:
    """Finds the passes where this package is imported from the folder of a checkout: they lie beside it there."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of ``onnxprune.passes``."""
        if name != f"{__name__}.passes":
            return None
        return spec_from_file_location(name, _HERE.parent / "passes" / "__init__.py")


if not (_HERE / "passes").is_dir() and (_HERE.parent / "passes" / "base.py").is_file():
    sys.meta_path.append(_Checkout)

# Import paths that the documentation showed before modules had rooms, and where they lead; they go after one release.
_MOVED = {
    "allocation": "pruning.allocation",
    "calibration": "data.samples",
    "certificate": "pruning.certificate",
    "compensation": "pruning.compensation",
    "cost": "analysis.cost",
    "coupling": "analysis.coupling",
    "criteria": "pruning.criteria",
    "evaluation": "data.evaluation",
    "fidelity": "data.fidelity",
    "graph": "ir.graph",
    "model": "ir.model",
    "planning": "pruning.choosing",
    "plans": "pruning.plan",
    "relations": "ops.relations",
    "rewrite": "pruning.shrinking",
    "shapes": "ir.shapes",
    "weights": "ir.weights",
}


# Names of old and what they are now; they go after one release, too.
_RENAMED = {"Runtime": "LocalMachine"}


class _Moved(ModuleType):
    """What stands at an import path of old: hands on what the module at the new one holds."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what import machinery asks of any module
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        home = f"onnxprune.{_MOVED[self.__name__.removeprefix('onnxprune.')]}"
        value = getattr(import_module(home), name)
        warnings.warn(f"{self.__name__} is now {home}; the next release has it only there", DeprecationWarning, 2)
        return value


def _version() -> str:
    """The installed version, which comes from git's tags; "unknown" where nothing is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxprune")
    except PackageNotFoundError:
        return "unknown"


sys.modules.update({f"onnxprune.{old}": _Moved(f"onnxprune.{old}") for old in _MOVED})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"onnxprune.{name} is now onnxprune.{new}; the next release has only that", DeprecationWarning, 2)
        return _public(new)
    return sys.modules[f"onnxprune.{name}"] if name in _MOVED else _public(name)
