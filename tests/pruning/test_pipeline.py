"""``compress``: all in one go."""

from __future__ import annotations

from pathlib import Path

import onnxprune

RESIDUAL = Path(__file__).parents[2] / "models" / "residual_torchscript.onnx"


def test_the_result_can_be_taken_away(tmp_path: Path) -> None:
    """As a message and as a file, without a detour."""
    result = onnxprune.compress(RESIDUAL, mode="fa", reduce=0.3)
    assert result.certificate
    result.save(tmp_path / "out.onnx")
    assert onnxprune.load(tmp_path / "out.onnx").proto == result.proto
