"""From a float model to a quantised one: what is refused, what is raised, what stays float."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

import onnxprune
from onnxprune.cli.app import app
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples
from onnxprune.errors import DataError, UsageError
from onnxprune.ir.model import Model
from onnxprune.pruning.quantization import quantizing, selecting
from onnxprune.pruning.quantization.calibrating import collect_histograms, methods_of
from onnxprune.pruning.quantization.correcting import rounded_weights, with_corrected_biases
from onnxprune.pruning.quantization.formats import Format, format_for
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.preparing import layers_of, prepare
from onnxprune.pruning.quantization.quantizing import quantise_model
from onnxprune.pruning.quantization.writing import quantisable, rounded_anyway, write_quantised

from .networks import network, samples

LAYERS = {"node0_Conv", "node2_Conv", "node5_Conv", "node9_Gemm"}
DENSE = "models/dense_torchscript.onnx"
SAMPLES = "models/fashion_sample.npz"


def kinds(model: Model) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Times as asked: of a model, by the layers that are float in it; of a layer in integers and floats."""
    asked: dict[str, Any] = {"file": lambda floats: 0.5, "layers": ({}, {})}

    def seconds_of(models: Sequence[Model], *rest: object) -> list[float]:
        return [1.0, *(asked["file"](float_layers(model)) for model in models[1:])]

    def layer_seconds(shop: selecting.Workshop, model: Model) -> dict[str, float]:
        return asked["layers"]["QuantizeLinear" in kinds(model)]

    monkeypatch.setattr(selecting, "seconds_of", seconds_of)
    monkeypatch.setattr(quantizing, "seconds_of", seconds_of)
    monkeypatch.setattr(selecting, "layer_seconds", layer_seconds)
    return asked


def float_layers(model: Model) -> set[str]:
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {node.name for node in model.graph.node if node.name in LAYERS and node.input[1] not in rounded}


def quantise(model: Model | None = None, **options: Any) -> onnxprune.Quantization:
    return quantise_model(model or network(), samples(), samples(1), QuantizeOptions(**options))


def test_all_layers_become_integers_and_the_file_says_what_it_said(times: dict[str, Any]) -> None:
    made = quantise()
    assert set(made.layers) == LAYERS
    assert not made.floats
    assert made.certificate
    assert made.loss.sqnr["y"] > 20
    assert made.model.skeleton.metadata_props[0].value == "kept"
    onnx.checker.check_model(made.proto, full_check=True)
    assert made.model.file_size < network().file_size * 1.3


def test_layers_that_take_longer_stay_float_where_that_helps(times: dict[str, Any]) -> None:
    times["layers"] = (dict.fromkeys(LAYERS, 1.0), {name: 2.0 if "0" in name else 0.5 for name in LAYERS})
    times["file"] = lambda floats: 0.4 if floats == {"node0_Conv"} else 0.5
    made = quantise()
    assert made.floats.keys() == {"node0_Conv"}
    assert "in integers" in made.floats["node0_Conv"]
    times["file"] = lambda floats: 0.5
    assert not quantise().floats


def test_a_float_layer_between_integers_would_be_rounded_by_onnxruntime(times: dict[str, Any]) -> None:
    times["layers"] = (dict.fromkeys(LAYERS, 1.0), {name: 2.0 if "2" in name else 0.5 for name in LAYERS})
    times["file"] = lambda floats: 0.4
    assert set(quantise().layers) == LAYERS


def test_where_nothing_is_faster_the_float_model_comes_back(times: dict[str, Any]) -> None:
    times["file"] = lambda floats: 1.1
    model = network()
    made = quantise(model)
    assert made.model is model
    assert made.certificate is None
    assert made.floats.keys() == LAYERS


def test_layers_that_cost_too_much_stay_float(times: dict[str, Any]) -> None:
    free = quantise()
    lost = free.loss.worst
    made = quantise(max_drop=lost / 3)
    assert made.certificate
    assert set(made.layers) < LAYERS
    assert made.loss.worst < lost
    assert any("variance by itself" in why for why in made.floats.values())
    assert set(quantise(max_drop=min(2 * lost, 0.9)).layers) == LAYERS
    none = quantise(max_drop=1e-12)
    assert none.certificate is None
    assert "no file" in none.floats["node0_Conv"]


def test_biases_make_good_what_rounding_adds_on_average() -> None:
    prepared = prepare(network(), samples())
    draft = prepared.edit()
    weight = draft.weights["w1"]
    # All weights of a filter are rounded up, but for the one that decides the scale.
    values = np.full_like(weight.array, 0.0125)
    values[:, 0, 0, 0] = 1.0
    draft.weights["w1"] = weight.with_array(values)
    model = draft.finish()
    data = Samples({"x": samples().inputs["x"] + 1}, None, 8)
    ranges = collect_histograms(model, data).ranges("minmax")
    written = write_quantised(model, ranges, ["node0_Conv"], Format(False, False))
    corrected = with_corrected_biases(model, written, data)
    change = corrected.weights["b1"].array - model.weights["b1"].array
    error = (rounded_weights(written)["node0_Conv"] - values).sum(axis=(2, 3))
    means = data.inputs["x"][:16].mean(axis=(0, 2, 3))
    np.testing.assert_allclose(change, -error @ means, rtol=1e-3, atol=1e-7)
    assert np.abs(change).min() > 1e-3
    for name in ("b2", "b3", "b4"):
        np.testing.assert_array_equal(corrected.weights[name].array, model.weights[name].array)


def test_layers_can_be_kept(times: dict[str, Any]) -> None:
    made = quantise(keep_float=["*Gemm"])
    assert made.floats == {"node9_Gemm": "asked for"}
    with pytest.raises(UsageError, match="keep_float: layer 'node0' is not known"):
        quantise(keep_float="node0")


def test_an_older_operator_set_is_raised(times: dict[str, Any]) -> None:
    made = quantise(network(11))
    assert made.model.opset() >= 13
    assert made.certificate
    onnxruntime.InferenceSession(made.proto.SerializeToString())


def test_quantised_models_are_refused(times: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="quantised already: QuantizeLinear 'x_QuantizeLinear'"):
        quantise(quantise().model)


def test_a_model_without_layers_is_refused() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        net (float[N, 3, 12, 12] x) => (float[N, 3, 12, 12] y) { y = Relu(x) }""")
    with pytest.raises(UsageError, match="nothing to quantise"):
        quantise(onnxprune.load(proto))


def test_data_is_needed() -> None:
    with pytest.raises(UsageError, match="needs calibration data"):
        onnxprune.quantize(network())
    with pytest.raises(DataError):
        onnxprune.quantize(network(), calibration={"x": np.zeros((0, 3, 12, 12), np.float32)})


def test_preparing_keeps_what_is_computed_and_names_every_node() -> None:
    proto = network(11).to_proto()
    for node in proto.graph.node:
        node.name = "same"
    model = onnxprune.load(proto)
    prepared = prepare(model, samples())
    assert len({node.name for node in prepared.graph.node}) == len(prepared.graph.node)
    before, after = (outputs_of(m, samples(1), "it")["y"] for m in (network(11), prepared))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert len(layers_of(prepared)) == 4


def test_methods_agree_where_nothing_is_cut() -> None:
    prepared = prepare(network(), samples())
    histograms = collect_histograms(prepared, samples())
    largest = histograms.ranges("minmax")
    for method in methods_of("auto"):
        found = histograms.ranges(method)
        assert found.found.keys() == largest.found.keys()
        for name, (low, high) in found.found.items():
            assert largest.found[name][0] <= low <= high <= largest.found[name][1]
    run = onnxruntime.InferenceSession(prepared.proto.SerializeToString()).run(["y"], dict(samples().inputs))[0]
    np.testing.assert_allclose(largest.found["y"], (run.min(), run.max()), rtol=1e-5)


def test_float_layers_in_a_row_are_left_alone() -> None:
    prepared = prepare(network(), samples())
    ranges = collect_histograms(prepared, samples()).ranges("minmax")
    names = quantisable(prepared)
    for floats, rounded in [
        ({"node2_Conv"}, {"node2_Conv"}),
        ({"node0_Conv"}, set()),
        ({"node2_Conv", "node4_Add"}, set()),
    ]:
        written = write_quantised(prepared, ranges, [n for n in names if n not in floats], Format(False, False))
        assert rounded_anyway(written) == rounded


@pytest.mark.parametrize(
    ("machine", "flags", "wanted"),
    [
        ("x86_64", "flags: avx2 avx512_vnni", Format(signed=False, reduced=False)),
        ("AMD64", "flags: avx2 avx_vnni", Format(signed=False, reduced=False)),
        ("x86_64", "flags: avx2 fma", Format(signed=False, reduced=True)),
        ("x86_64", "", Format(signed=False, reduced=False)),
        ("aarch64", "", Format(signed=True, reduced=False)),
    ],
)
def test_the_format_follows_from_the_processor(machine: str, flags: str, wanted: Format) -> None:
    assert format_for(machine, flags) == wanted


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    output = tmp_path / "int8.onnx"
    result = run(app, ["quantize", DENSE, "-o", str(output), "--calibrate", SAMPLES, "--method", "minmax", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {"certificate", "sqnr", "seconds", "layers", "floats", "fidelity", "format"} <= told.keys()
    onnxruntime.InferenceSession(output)
    missing = run(app, ["quantize", DENSE, "-o", str(output)])
    assert missing.exit_code == 2
