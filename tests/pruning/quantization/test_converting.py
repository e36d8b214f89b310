"""Forms without calibration: what is written, what is proven of the weights, what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import onnxprune
from onnxprune.cli.app import app
from onnxprune.errors import UsageError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.pruning.quantization import converting
from onnxprune.pruning.quantization.converting import convert
from onnxprune.pruning.quantization.measuring import compare_floats
from onnxprune.pruning.quantization.stored import compare_weights, stored_weights

FORMS: list[dict[str, Any]] = [{"fp16": True}, {"weights": "int8"}, {"weights": "int4"}, {"dynamic": True}]


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found = [1.0, 0.5]
    monkeypatch.setattr(converting, "seconds_of", lambda *_: found)
    return found


def network() -> Model:
    """An LSTM, a MatMul, a Gemm with transposed weights, and a convolution over the sequence."""
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[6, 4, 24] x) => (float[24, 5] y) {
        h, last = LSTM<hidden_size = 32>(x, w, r)
        flat = Reshape(h, shape)
        a = MatMul(flat, m)
        b = Relu(a)
        g = Gemm<transB = 1>(b, n, bias)
        wide = Unsqueeze(g, axes)
        c = Conv<kernel_shape = [1]>(wide, k)
        y = Squeeze(c, axes)
    }""")
    rng = np.random.default_rng(1)
    shapes = {"w": (1, 128, 24), "r": (1, 128, 32), "m": (32, 40), "n": (16, 40), "bias": (16,), "k": (5, 16, 1)}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32) / np.sqrt(shape[-1] * 4)
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for name, numbers in {"shape": [24, 32], "axes": [2]}.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array(numbers), name))
    proto.metadata_props.add(key="names", value="kept")
    onnx.checker.check_model(proto)
    return onnxprune.load(proto)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forms_are_written_proven_and_told(form: dict[str, Any]) -> None:
    made = convert(network(), **form)
    assert made.weights.count == {"float16": 6, "int8 weights": 4, "int4 weights": 2, "dynamic int8": 4}[made.form]
    assert 0.3 < made.weights.worst <= (1.01 if "int4" in made.form else 0.51)
    assert made.loss.sqnr["y"] > 12
    assert made.generated
    assert made.model.skeleton.metadata_props[0].value == "kept"
    onnx.checker.check_model(made.model.to_proto())
    model = onnxruntime.InferenceSession(made.model.to_proto().SerializeToString())
    assert {value.type for value in (*model.get_inputs(), *model.get_outputs())} == {"tensor(float)"}
    json.dumps(made.to_dict())


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_weight_that_is_off_is_noticed(form: dict[str, Any]) -> None:
    made = convert(network(), **form)
    reference = converting._prepared(network(), made.form, converting._samples(network(), converting.ConvertOptions()))
    assert compare_weights(reference, made.model).count == made.weights.count
    smaller = {name for name, weight in made.model.weights.items() if weight.dtype in (np.int8, np.uint8, np.float16)}
    numbers = [name for name in smaller if made.model.weights[name].array.size > 128 and "zero" not in name]
    assert numbers
    for name in numbers:
        draft = made.model.edit()
        held = draft.weights[name]
        values = held.array.copy()
        place = (0,) * values.ndim
        values[place] += np.asarray(values[place] / 64 + 0.01 if values.dtype == np.float16 else 3, values.dtype)
        draft.weights[name] = held.with_array(values)
        with pytest.raises(VerificationError, match="steps off the float model's"):
            compare_weights(reference, draft.finish())


def test_what_was_not_the_models_is_noticed() -> None:
    made = convert(network(), dynamic=True)
    names = [one.name for one in stored_weights(network(), made.model)]
    draft = network().edit()
    del draft.weights[names[0]]
    with pytest.raises(VerificationError, match="none of the float model's"):
        compare_weights(draft.finish(), made.model)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="quantised already"):
        convert(convert(network(), dynamic=True).model, fp16=True)
    with pytest.raises(UsageError, match="no float32 weight that float16 is for"):
        convert(convert(network(), fp16=True).model, fp16=True)
    with pytest.raises(UsageError, match="give one form"):
        convert(network(), fp16=True, dynamic=True)
    with pytest.raises(UsageError, match="give a form"):
        convert(network())
    with pytest.raises(UsageError, match="weights must be int8 or int4"):
        convert(network(), weights="int3")


def test_the_command(tmp_path: Path, times: list[float]) -> None:
    path, output = tmp_path / "float.onnx", tmp_path / "out.onnx"
    network().save(path)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["quantize", str(path), "-o", str(output), "--force", *words])

    told = json.loads(run("--weights", "int8", "--json").stdout)
    assert {"form", "weights", "sqnr", "seconds", "file_size", "fidelity"} <= told.keys()
    assert told["file_size"]["after"] < output.stat().st_size < 1.1 * told["file_size"]["after"]  # it tells its past
    assert "dynamic int8. Weights: 4" in run().stdout
    times[1] = 1.2
    assert "it is no faster (size only" in run("--weights", "int4").stdout
    slower = run()
    assert slower.exit_code == 2
    assert "--calibrate" in slower.output
    assert run("--fp16", "--max-drop", "0.1").exit_code == 2


def test_blocks_of_zeros_stay_zero() -> None:
    draft = network().edit()
    draft.weights["m"] = draft.weights["m"].with_array(np.zeros((32, 40), np.float32))
    for form in FORMS[1:]:
        assert convert(draft.finish(), **form).weights.worst <= 1.01


def test_what_crashes_onnxruntime_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies says nothing else than that it died."""
    tried: list[set[str]] = []

    def dies(proto: onnx.ModelProto) -> bool:
        made = {name for node in proto.graph.node if node.op_type == "Transpose" for name in node.output}
        casts = {name for node in proto.graph.node if node.op_type == "Cast" for name in node.input}
        tried.append(made & casts)
        return len(tried) != survivor

    monkeypatch.setattr(converting, "_crashes", dies)
    turned = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[4, 24] x) => (float[24, 4] y) { a = Relu(x)
        t = Transpose<perm = [1, 0]>(a)
        r = Relu(t)
        y = MatMul(r, m) }""")
    turned.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "m"))
    survivor = 2
    assert convert(onnxprune.load(turned), fp16=True).weights.count == 1
    assert [bool(names) for names in tried] == [False, True], "the second time the Transpose is in 32 bits"
    survivor = 9
    with pytest.raises(UsageError, match="crashes as it loads the model in float16"):
        convert(onnxprune.load(turned), fp16=True)


def test_a_single_sample_has_a_spread() -> None:
    one = np.array([[1.0, 2.0, 3.0]])
    assert compare_floats({"y": one}, {"y": one + 0.1}, 1).errors["y"] == pytest.approx(0.01 / (2 / 3))


def test_a_process_that_dies_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(network().to_proto())
    assert not converting._crashes(broken)
    broken.graph.node[0].op_type = "Nonsense"
    assert not converting._crashes(broken)
    monkeypatch.setattr(converting.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=-11))
    assert converting._crashes(broken)
