"""What a pass is: a rewriting of a graph that keeps it valid."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxprune.ir.model import Model

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PassResult:
    """What a pass returns.

    Attributes:
        model: the rewritten model, or the very model given when there was nothing to do.
        modified: whether anything changed.
    """

    model: Model
    modified: bool


class Pass(ABC):
    """A rewriting of a model. Subclasses set ``name``, have a docstring, and write ``run``.

    Passes are called like functions, and log what they did at debug level. They are deterministic and idempotent, and
    never change the model they are given.

    Attributes:
        name: how the command line and the registry call it.
        summary: the first line of its docstring.
        claims_equality: whether the rewritten model computes what the given one does, up to rounding.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    claims_equality: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.summary = (inspect.getdoc(cls) or "").partition("\n")[0]

    def precondition(self, model: Model) -> None:  # noqa: B027 - most passes take any model
        """Raise PassError where the pass cannot work on this model."""

    @abstractmethod
    def run(self, model: Model) -> PassResult:
        """Rewrite the model."""

    def postcondition(self, model: Model) -> None:  # noqa: B027 - the manager's checks suffice for most
        """Raise PassError where the rewritten model is not as promised."""

    def __call__(self, model: Model) -> PassResult:
        """Run with pre- and postcondition.

        Raises:
            PassError: one of them does not hold.
        """
        self.precondition(model)
        result = self.run(model)
        if result.modified:
            self.postcondition(result.model)
            _LOG.debug("pass %s: from %s to %s", self.name, _size(model), _size(result.model))
        else:
            _LOG.debug("pass %s: nothing to do", self.name)
        return result


def _size(model: Model) -> str:
    return f"{len(model.graph.node)} nodes and {len(model.weights)} weights"


def until_settled(model: Model, once: Callable[[Model], Model | None]) -> PassResult:
    """Rewrite again and again, until a rewriting finds nothing to do (None)."""
    result = model
    while (after := once(result)) is not None:
        result = after
    return PassResult(result, modified=result is not model)


class GraphPass(Pass):
    """A pass on the editable onnx-graphsurgeon graph, for compiler pipelines and scripts."""

    def run(self, model: Model) -> PassResult:
        """Let ``transform`` edit the graph, and take back only what it edited."""
        graph = model.to_graphsurgeon()
        if not self.transform(graph):
            return PassResult(model, modified=False)
        return PassResult(model.with_graphsurgeon(graph), modified=True)

    @abstractmethod
    def transform(self, graph: Any) -> bool:
        """Edit the ``onnx_graphsurgeon.Graph`` in place; returns whether anything changed."""
