"""What every test of a pass does: run it, and check what all passes promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from onnxprune.ir.model import Model, load
from onnxprune.passes.base import Pass
from onnxprune.passes.manager import Check, PassManager

Build = Callable[..., Model]
Apply = Callable[..., Model]


@pytest.fixture
def build() -> Build:
    """Make a model of ONNX text: ``build(body, opset=17, ir=8, weights={name: array})``."""

    def make(
        text: str, opset: int = 17, ir: int = 8, weights: Mapping[str, Any] | None = None, functions: str = ""
    ) -> Model:
        imports = f'"": {opset}, "my": 1' if functions or "my." in text else f'"": {opset}'
        proto: ModelProto = parser.parse_model(f"<ir_version: {ir}, opset_import: [{imports}]> {text} {functions}")
        for name, array in (weights or {}).items():
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        return load(proto)

    return make


@pytest.fixture
def apply() -> Apply:
    """Run a pass that should change the model; check all that passes promise."""

    def run(step: Pass, model: Model, check: Check = Check.EQUALITY) -> Model:
        before = model.to_proto()
        result = PassManager([step], check).run(model)
        assert result.modified
        assert model.to_proto() == before
        again = step(result.model)
        assert not again.modified
        assert again.model is result.model
        assert step(load(before)).model.to_proto() == result.model.to_proto()
        return result.model

    return run


@pytest.fixture
def unchanged() -> Callable[[Pass, Model], None]:
    """Run a pass that should find nothing to do."""

    def run(step: Pass, model: Model) -> None:
        result = step(model)
        assert not result.modified
        assert result.model is model

    return run
