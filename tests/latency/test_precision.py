"""In which numbers layers run, of files that say something else, too."""

from pathlib import Path
from typing import Any

import pytest

from onnxprune.ir.engine import Engine
from onnxprune.latency.precision import layers_by_precision
from onnxprune.ops import Operator
from onnxprune.pruning.quantization import converting
from onnxprune.pruning.quantization.calibrating import collect_histograms
from onnxprune.pruning.quantization.formats import format_here
from onnxprune.pruning.quantization.preparing import prepare
from onnxprune.pruning.quantization.writing import quantisable, write_quantised
from tests.pruning.quantization.networks import network, samples
from tests.pruning.quantization.test_converting import network as recurrent

_FORMS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({}, {"fp32": 4, "fp16": 0, "int8": 0}),
    # Without kernels for them, numbers of 16 bits are cast; weights of few bits are only stored so.
    ({"fp16": True}, {"fp32": 4, "fp16": 0, "int8": 0}),
    ({"weights": "int4"}, {"fp32": 4, "fp16": 0, "int8": 0}),
    ({"dynamic": True}, {"fp32": 1, "fp16": 0, "int8": 3}),
]


@pytest.mark.parametrize(("form", "wanted"), _FORMS, ids=str)
def test_what_counts_is_how_layers_run(form: dict[str, Any], wanted: dict[str, int], tmp_path: Path) -> None:
    model = converting.convert(recurrent(), **form).model if form else recurrent()
    model.save(tmp_path / "model.onnx")
    assert layers_by_precision(tmp_path / "model.onnx", Engine()) == wanted


def test_integers_are_counted_where_they_are_fused(tmp_path: Path) -> None:
    prepared = prepare(network(), samples())
    ranges = collect_histograms(prepared, samples()).ranges("minmax")
    for nodes, count in ((quantisable(prepared), 4), (["node0_Conv", "node2_Conv"], 2)):
        write_quantised(prepared, ranges, nodes, format_here()).save(tmp_path / "model.onnx")
        found = layers_by_precision(tmp_path / "model.onnx", Engine())
        assert found == {"fp32": 4 - count, "fp16": 0, "int8": count}


def test_an_operator_that_says_nothing_is_no_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network().save(tmp_path / "model.onnx")
    monkeypatch.setattr(Operator, "precision", lambda *_: None)
    assert layers_by_precision(tmp_path / "model.onnx", Engine()) == {"fp32": 0, "fp16": 0, "int8": 0}
