"""Options are defined once, and what derives from them follows."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.analysis import analyzing
from onnxprune.ops import default_registry
from onnxprune.pruning.options import CompressOptions, PlanOptions, options_of

RESIDUAL = Path(__file__).parents[2] / "models" / "residual_torchscript.onnx"


def test_functions_take_and_tell_all_options() -> None:
    for function, kind in ((onnxprune.plan, PlanOptions), (onnxprune.compress, CompressOptions)):
        assert list(inspect.signature(function).parameters)[1:] == list(options_of(kind))
        assert all(f"    {name}: " in (function.__doc__ or "") for name in options_of(kind))
        with pytest.raises(TypeError, match="redcue"):
            function(RESIDUAL, redcue=0.5)  # type: ignore[call-arg]


def test_with_a_registry_of_ones_own_too_a_model_is_analysed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    whole = analyzing._analyze

    def counted(model: Any, *rest: Any) -> Any:
        seen.append(model)
        return whole(model, *rest)

    monkeypatch.setattr(analyzing, "_analyze", counted)
    done = onnxprune.compress(RESIDUAL, reduce=0.3, registry=default_registry().extended())
    assert sum(model is done.analysis.model for model in seen) == 1
