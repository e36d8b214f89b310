"""What notebooks show: every figure is that of the object, and names are text."""

from __future__ import annotations

import re
import sys

import pandas as pd
import pytest

import onnxprune
from onnxprune._display import long, percent
from onnxprune.errors import UsageError
from onnxprune.pruning.comparison import Comparison, compare
from onnxprune.pruning.pipeline import Compression
from tests.benchmarks.generated import residual
from tests.cli.support import RESIDUAL, conv, model, node

NASTY = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def compression() -> Compression:
    return onnxprune.compress(RESIDUAL, reduce=0.4)


@pytest.fixture(scope="module")
def comparison(compression: Compression) -> Comparison:
    return compare(compression.analysis, compression.plan)


def test_frames_of_layers(compression: Compression, comparison: Comparison) -> None:
    layers = compression.analysis.to_pandas()
    assert list(layers["name"]) == [layer.name for layer in compression.analysis.layers]
    assert layers["flops"].sum() == compression.analysis.totals["flops"]
    assert layers["params_share"].sum() == pytest.approx(sum(x.shares["params"] for x in compression.analysis.layers))
    changes = compression.to_pandas()
    pd.testing.assert_frame_equal(changes, comparison.to_pandas())
    assert changes["flops_after"].sum() == compression.plan.after["flops"]
    assert (changes["channels_before"] == layers["channels"]).all()


def test_frames_of_plans_and_certificates(compression: Compression) -> None:
    frame = compression.plan.to_pandas()
    found = {(row.tensor, row.axis): row.positions for row in frame.itertuples()}
    assert found == {
        (tensor, axis): at for tensor, axes in compression.plan.removed.items() for axis, at in axes.items()
    }
    assert [len(at) for at in frame["positions"]] == list(frame["removed"])
    assert compression.certificate is not None
    outputs = compression.certificate.to_pandas()
    assert list(outputs["relative"]) == [output.relative for output in compression.certificate.outputs]


def test_frames_of_nothing_have_their_columns() -> None:
    analysis = onnxprune.analyze(model(node("Relu", ["x"], "y")))
    assert list(analysis.to_pandas()["flops"]) == []
    assert list(onnxprune.Plan({}).to_pandas()["positions"]) == []


def test_html_tells_totals_and_layers(compression: Compression) -> None:
    page = compression._repr_html_()
    for layer in compression.analysis.layers:
        assert f">{layer.name}<" in page
    assert f">{long(compression.plan.after['flops'])}<" in page
    assert "Certificate passed" in page
    assert page.count("<table>") == page.count("</table>") == 3
    assert "seed 0" in compression.plan._repr_html_()
    assert "reaches graph output" in compression.analysis._repr_html_()


def test_long_tables_are_cut_and_say_so() -> None:
    analysis = onnxprune.analyze(residual(400))
    page = analysis._repr_html_()
    assert page.count("<tr>") == 61
    assert f"and {len(analysis.layers) - 60} more" in page


def test_names_are_escaped() -> None:
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))
    proto.graph.node[0].name = NASTY
    proto.graph.output[0].name = NASTY
    proto.graph.node[2].output[0] = NASTY
    result = onnxprune.compress(proto, channels=0.5)
    assert result.certificate is not None
    pages = (result, result.analysis, result.plan, result.certificate, compare(result.analysis, result.plan))
    for page in (shown._repr_html_() for shown in pages):
        assert "<script" not in page
        assert not re.search(r"&(?!amp;|lt;|gt;|quot;|#x27;)", page)
    assert "&lt;script&gt;" in result.analysis._repr_html_()


def test_missing_pandas_is_named(compression: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"pip install .*'pandas>"):
        compression.analysis.to_pandas()


def test_a_share_of_nothing_has_no_sign() -> None:
    assert [percent(x) for x in (-1e-5, 0.0, 1e-5, -0.01)] == ["0.0 %", "0.0 %", "<0.1 %", "-1.0 %"]
