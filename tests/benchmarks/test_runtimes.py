"""Half the time in another runtime, within 5 %; needs the exports of tests/zoo/export_zoo.py and a quiet machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.cli.support import done_json

EXPORTS = Path(os.environ.get("ONNXPRUNE_ZOO_EXPORTS", "no folder is named"))

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.skipif(not EXPORTS.is_dir(), reason="ONNXPRUNE_ZOO_EXPORTS does not name the folder of exports"),
]


@pytest.mark.parametrize("network", ["mobilenet_v2", "shufflenet_v2_x1_0", "resnet18"])
@pytest.mark.parametrize("runtime", ["openvino", "tract", "tvm"])
def test_half_the_time_is_met(network: str, runtime: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    model = EXPORTS / "torchscript" / f"{network}.onnx"
    how = ("--runtime", runtime, "--mode", "latency", "--reduce", 0.5, "--no-verify")
    latency = done_json("prune", model, "-o", tmp_path / "out.onnx", *how)["latency"]
    assert latency["measured"] == pytest.approx(latency["asked"], rel=0.05)
