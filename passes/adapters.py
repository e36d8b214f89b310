"""Passes of others here, and ours there.

``ProtoPass`` runs any function of a ModelProto (onnxsim's ``simplify``, onnxslim's ``slim``) and ``IrPass`` a pass of
``onnx_ir`` as one of ours, checked by the manager like any other; ``to_onnx_ir`` lets a pass manager of ``onnx_ir`` or
onnxscript run one of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import ModelProto

from onnxprune.errors import OnnxPruneError, PassError, UsageError
from onnxprune.ir.model import Model, load
from onnxprune.passes.base import Pass, PassResult


class ProtoPass(Pass):
    """Run a function that makes a ModelProto of a ModelProto."""

    name = "proto"

    def __init__(
        self, function: Callable[[ModelProto], ModelProto], name: str = "", claims_equality: bool = True
    ) -> None:
        """Args:
        function: takes a ModelProto of its own, and returns another or the same one changed.
        name: how messages call it; the function's own name if not given.
        claims_equality: whether the result computes what the given model does.
        """
        self.name = name or getattr(function, "__name__", "proto")  # type: ignore[misc]
        self.claims_equality = claims_equality  # type: ignore[misc]
        self._function = function

    def run(self, model: Model) -> PassResult:
        """Run it. Raises PassError for whatever it raises."""
        before, own = model.to_proto(), ModelProto()
        own.CopyFrom(before)
        try:
            after = self._function(own)
        except OnnxPruneError:
            raise
        except Exception as error:
            raise PassError(f"{type(error).__name__}: {error}") from error
        return PassResult(model, modified=False) if after == before else PassResult(load(after), modified=True)


class IrPass(Pass):
    """Run a pass of ``onnx_ir``."""

    name = "onnx_ir"

    def __init__(self, inner: Any, claims_equality: bool = True) -> None:
        """Args:
        inner: an ``onnx_ir.passes.PassBase``.
        claims_equality: whether the result computes what the given model does.
        """
        self.name = type(inner).__name__  # type: ignore[misc]
        self.claims_equality = claims_equality  # type: ignore[misc]
        self._inner = inner

    def run(self, model: Model) -> PassResult:
        """Run it. Raises PassError for whatever it raises."""
        try:
            result = self._inner(model.to_ir())
        except OnnxPruneError:
            raise
        except Exception as error:
            raise PassError(f"{type(error).__name__}: {error}") from error
        return PassResult(load(result.model), modified=True) if result.modified else PassResult(model, modified=False)


def to_onnx_ir(step: Pass) -> Any:
    """An ``onnx_ir.passes.FunctionalPass`` that runs one of our passes. Raises UsageError where onnx-ir is missing."""
    try:
        from onnx_ir import Model as IrModel
        from onnx_ir import passes
    except ImportError as error:
        raise UsageError("this needs onnx-ir: pip install onnx-ir") from error

    class _Ours(passes.FunctionalPass):  # type: ignore[misc, unused-ignore]
        @property
        def name(self) -> str:
            return step.name

        def call(self, model: IrModel) -> passes.PassResult:
            result = step(load(model))
            return passes.PassResult(result.model.to_ir() if result.modified else model, result.modified)

    return _Ours()
