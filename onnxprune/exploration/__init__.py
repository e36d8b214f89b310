"""Many prunings of one model, recorded: what is lost for what is saved.

:func:`explore` makes and records runs, :func:`read_results` reads them, :func:`pick` writes the model of one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.exploration.exploring import Exploration, explore
    from onnxprune.exploration.grid import Grid
    from onnxprune.exploration.merging import merge
    from onnxprune.exploration.pareto import non_dominated, pareto_front
    from onnxprune.exploration.picking import Limits, Picked, choose, pick
    from onnxprune.exploration.results import Results, read_results
    from onnxprune.exploration.runs import About, Figures, Run, Setting

_HOME = {
    "exploring": ("Exploration", "explore"),
    "grid": ("Grid",),
    "merging": ("merge",),
    "pareto": ("non_dominated", "pareto_front"),
    "picking": ("Limits", "Picked", "choose", "pick"),
    "results": ("Results", "read_results"),
    "runs": ("About", "Figures", "Run", "Setting"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "About",
    "Exploration",
    "Figures",
    "Grid",
    "Limits",
    "Picked",
    "Results",
    "Run",
    "Setting",
    "choose",
    "explore",
    "merge",
    "non_dominated",
    "pareto_front",
    "pick",
    "read_results",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'onnxprune.exploration' has no attribute '{name}'")
    return getattr(import_module(f"onnxprune.exploration.{_MODULE_OF[name]}"), name)
