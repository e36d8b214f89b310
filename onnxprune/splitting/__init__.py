"""Where a model is cut for several machines: every cut with its costs, and the parts with their proof.

:func:`weigh` finds cuts and what they cost, :func:`split_at` makes the parts, :func:`chain_within` finds chains;
:func:`early_exits` says how many samples need not go all the way.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.splitting.chain import chain_within, even_chain
    from onnxprune.splitting.costs import Ledger, PartCost
    from onnxprune.splitting.exits import Exit, Exits, early_exits
    from onnxprune.splitting.links import Energy, Link
    from onnxprune.splitting.narrowing import WireSize, narrowed
    from onnxprune.splitting.splitting import Splitting, split_at
    from onnxprune.splitting.weighing import CutCost, Setting, Weighing, weigh

_HOME = {
    "chain": ["chain_within", "even_chain"],
    "costs": ["Ledger", "PartCost"],
    "exits": ["Exit", "Exits", "early_exits"],
    "links": ["Energy", "Link"],
    "narrowing": ["WireSize", "narrowed"],
    "splitting": ["Splitting", "split_at"],
    "weighing": ["CutCost", "Setting", "Weighing", "weigh"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CutCost",
    "Energy",
    "Exit",
    "Exits",
    "Ledger",
    "Link",
    "PartCost",
    "Setting",
    "Splitting",
    "Weighing",
    "WireSize",
    "chain_within",
    "early_exits",
    "even_chain",
    "narrowed",
    "split_at",
    "weigh",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'onnxprune.splitting' has no attribute '{name}'")
    return getattr(import_module(f"onnxprune.splitting.{_MODULE_OF[name]}"), name)
