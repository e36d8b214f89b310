"""onnxprune makes ONNX models smaller: complexity-driven filter pruning on the graph, with a certificate.

The main functions: :func:`load`, :func:`normalize`, :func:`analyze`, :func:`plan`, :func:`apply`, :func:`verify`
and :func:`compress`, which does it all. Names are imported on first use, so that the command line starts fast.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis, analyze
    from onnxprune.errors import (
        BudgetError,
        ConversionError,
        DataError,
        MeasurementError,
        ModelError,
        OnnxPruneError,
        PassError,
        PlanError,
        RegistryError,
        ShapeError,
        UsageError,
        VerificationError,
    )
    from onnxprune.ir.model import Model, load
    from onnxprune.latency.bench import Bench, bench
    from onnxprune.latency.engine import Engine
    from onnxprune.latency.fitting import LatencyFit, meet_latency
    from onnxprune.latency.machine import Runtime
    from onnxprune.latency.model import LatencyProfile
    from onnxprune.latency.profile import profile_latency
    from onnxprune.passes.normalize import normalize
    from onnxprune.pruning.certificate import Certificate, verify
    from onnxprune.pruning.choosing import plan
    from onnxprune.pruning.compensation import Compensation, compensate
    from onnxprune.pruning.pipeline import Compression, apply, compress
    from onnxprune.pruning.plan import Plan
    from onnxprune.pruning.sensitivity import Sensitivity, scan_sensitivity

__version__ = "0.1.0"

_HERE = Path(__file__).parent
if not (_HERE / "passes").is_dir() and (_HERE.parent / "passes" / "base.py").is_file():
    # Imported from the folder of a checkout instead of an installation: there, passes/ lies beside this package.
    __path__.append(str(_HERE.parent))

_HOME = {
    "analysis.analyzing": ("Analysis", "analyze"),
    "passes.normalize": ("normalize",),
    "pruning.certificate": ("Certificate", "verify"),
    "pruning.compensation": ("Compensation", "compensate"),
    "pruning.pipeline": ("Compression", "apply", "compress"),
    "errors": (
        "BudgetError",
        "ConversionError",
        "DataError",
        "MeasurementError",
        "ModelError",
        "OnnxPruneError",
        "PassError",
        "PlanError",
        "RegistryError",
        "ShapeError",
        "UsageError",
        "VerificationError",
    ),
    "latency.bench": ("Bench", "bench"),
    "latency.engine": ("Engine",),
    "latency.fitting": ("LatencyFit", "meet_latency"),
    "latency.machine": ("Runtime",),
    "latency.model": ("LatencyProfile",),
    "latency.profile": ("profile_latency",),
    "ir.model": ("Model", "load"),
    "pruning.choosing": ("plan",),
    "pruning.plan": ("Plan",),
    "pruning.sensitivity": ("Sensitivity", "scan_sensitivity"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Analysis",
    "Bench",
    "BudgetError",
    "Certificate",
    "Compensation",
    "Compression",
    "ConversionError",
    "DataError",
    "Engine",
    "LatencyFit",
    "LatencyProfile",
    "MeasurementError",
    "Model",
    "ModelError",
    "OnnxPruneError",
    "PassError",
    "Plan",
    "PlanError",
    "RegistryError",
    "Runtime",
    "Sensitivity",
    "ShapeError",
    "UsageError",
    "VerificationError",
    "__version__",
    "analyze",
    "apply",
    "bench",
    "compensate",
    "compress",
    "load",
    "meet_latency",
    "normalize",
    "plan",
    "profile_latency",
    "scan_sensitivity",
    "verify",
]


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


class _Moved(ModuleType):
    """What stands at an import path of old: hands on what the module at the new one holds."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what import machinery asks of any module
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        home = f"onnxprune.{_MOVED[self.__name__.removeprefix('onnxprune.')]}"
        value = getattr(import_module(home), name)
        warnings.warn(f"{self.__name__} is now {home}; the next release has it only there", DeprecationWarning, 2)
        return value


sys.modules.update({f"onnxprune.{old}": _Moved(f"onnxprune.{old}") for old in _MOVED})


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        return sys.modules[f"onnxprune.{name}"]
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'")
    value = getattr(import_module(f"onnxprune.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
