"""Models of strangers: text that is none, and external data that overlap or lie behind links."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from onnxprune.analysis.analyzing import analyze
from onnxprune.errors import ModelError
from onnxprune.ir.model import load
from tests.ir.test_model import data_of, external, small_model

__all__ = ["external"]  # a fixture


# Text that is none


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"Relu", "node 2"),
        (b"add", "node 1"),
        (b"conv", "node 0"),
        (b"com.example", "an operator set"),
        (b"sum", "node 1"),
        (b"a test", None),
        (b"the filters", None),
        (b"graph doc", None),
    ],
)
def test_names_that_are_not_utf_8(tmp_path: Path, text: bytes, place: str | None) -> None:
    data = small_model().SerializeToString()
    damaged = data.replace(text, text[:-1] + b"\xff")
    assert damaged != data or place is None
    (tmp_path / "m.onnx").write_bytes(damaged)
    if place is not None:
        with pytest.raises(ModelError, match=f"the name of {place} is not UTF-8"):
            load(tmp_path / "m.onnx")
    else:
        load(tmp_path / "m.onnx").save(tmp_path / "out.onnx")
    proto = ModelProto()
    proto.ParseFromString(damaged)
    if place is not None or text in (b"graph doc", b"a test"):
        with pytest.raises(ModelError, match="not UTF-8"):
            load(proto)
    else:
        load(proto).edit().finish().save(tmp_path / "out.onnx")


def test_a_weight_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    proto = small_model()
    proto.graph.initializer[0].name = "weight"
    data = proto.SerializeToString()
    position = data.rindex(b"weight")
    (tmp_path / "m.onnx").write_bytes(data[:position] + b"w\xffight" + data[position + 6 :])
    with pytest.raises(ModelError, match="the name of a weight is not UTF-8"):
        load(tmp_path / "m.onnx")


# External data of strangers


def test_external_data_that_overlap_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(values.tobytes())
    proto = small_model()
    for name, offset in (("one", 0), ("two", 1000), ("three", 0)):
        tensor = proto.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=[700])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", offset), ("length", 2800)):
            tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    load(tmp_path / "m.onnx").save(tmp_path / "out.onnx")
    for path in (tmp_path / "m.onnx", tmp_path / "out.onnx"):
        weights = load(path).weights
        np.testing.assert_array_equal(weights["two"].array, values[250:950])
        np.testing.assert_array_equal(weights["one"].array, weights["three"].array)
    assert data_of(tmp_path / "out.onnx").stat().st_size >= 3 * 2800


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_models_and_data_behind_links(external: Path, tmp_path: Path) -> None:
    # As the caches of model hubs have them.
    links = tmp_path / "snapshot"
    links.mkdir()
    for name in ("m.onnx", "weights.bin"):
        (links / name).symlink_to(external.with_name(name))
    model = load(links / "m.onnx")
    assert model.proto == onnx.load(external)
    before = external.read_bytes(), external.with_name("weights.bin").read_bytes()
    with pytest.raises(ModelError, match="loaded from"):
        model.save(external)
    with pytest.raises(ModelError, match="made from"):
        model.save(external.with_name("weights.bin"), overwrite_input=True)
    assert before == (external.read_bytes(), external.with_name("weights.bin").read_bytes())
    (links / "loop.onnx").symlink_to("loop.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load(links / "loop.onnx")
    with pytest.raises(ModelError, match="cannot write"):
        model.save(links / "loop.onnx")


def test_a_node_without_a_name_and_outputs_is_told_by_its_operator() -> None:
    node = onnx.helper.make_node("Conv", ["nowhere"], [])
    made = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3]) for n in ("x", "y")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node, made], "g", values[:1], values[1:]))
    with pytest.raises(ModelError, match="Conv 'Conv' reads 'nowhere'"):
        analyze(model)
