"""Pausing the search for cyclic garbage leaves it as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import onnx
import pytest

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.ir.collection import uncollected


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    was_on = gc.isenabled()
    yield
    (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("on", [True, False])
def test_the_search_is_off_inside_and_as_before_outside(on: bool) -> None:
    (gc.enable if on else gc.disable)()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() is on


def test_an_analysis_that_fails_leaves_it_on() -> None:
    gc.enable()
    with pytest.raises(ModelError):
        onnxprune.analyze(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g () => (float y) {}'))
    assert gc.isenabled()
