"""A model as a Keras model: the same outputs, `fit`, Keras's own files, and back into the ONNX graph."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.torch import write_back
from tests.cli.support import RESIDUAL
from tests.torch.support import run_onnx

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", exc_type=ImportError)
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend", allow_module_level=True)

from onnxprune.torch.keras import to_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 1, 28, 28)).astype(np.float32), RNG.integers(0, 10, 32)


def _batchnorm(batch: int | str = "N") -> onnx.ModelProto:
    """Conv, BatchNormalization and a Reshape to the batch that the file is for; names hold what paths are made of."""
    target = 0 if isinstance(batch, str) else batch
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[{batch}, 1, 28, 28] image) => (float[{batch}, 10] y)
    <int64[2] to = {{{target}, 5408}}> {{
        a = Conv(image, w)
        b = BatchNormalization(a, gamma, beta, mean, var)
        c = Relu(b)
        flat = Reshape(c, to)
        y = Gemm<transB = 1>(flat, dense)
    }}""")
    shapes = {"w": (8, 1, 3, 3), "gamma": (8,), "beta": (8,), "mean": (8,), "var": (8,), "dense": (10, 5408)}
    for name, shape in shapes.items():
        values = np.random.default_rng(1).uniform(0.5, 1, shape) / np.prod(shape[1:])
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.input[:] = [name.replace("image", "in/put") for name in node.input]
    model.graph.input[0].name = "in/put"
    return model


def _compiled(model: Any, **more: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"], **more)
    return model


def test_it_computes_the_same_trains_and_goes_back() -> None:
    pruned = onnxprune.compress(RESIDUAL, reduce=0.4, certify=False).model
    model = _compiled(to_keras(pruned))
    assert (model.input_shape, model.output_shape) == ((None, 1, 28, 28), (None, 10))
    (before,) = run_onnx(pruned, {"image": X})
    np.testing.assert_allclose(model.predict(X, verbose=0), before, atol=1e-4)
    history = model.fit(X, Y, epochs=3, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    trained = write_back(model, pruned)
    assert [node.op_type for node in trained.graph.node] == [node.op_type for node in pruned.graph.node]
    (after,) = run_onnx(trained, {"image": X})
    np.testing.assert_allclose(model.predict(X, verbose=0), after, atol=1e-4)
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("batch", ["N", 1])
def test_statistics_are_variables_and_one_batch_becomes_any(batch: int | str) -> None:
    proto = _batchnorm(batch)
    model = _compiled(to_keras(proto))
    assert model.input_shape == (None, 1, 28, 28)
    assert [variable.shape for variable in model.non_trainable_variables if variable.dtype == "float32"] == [(8,)] * 2
    first = model.get_weights()
    model(X)  # infers, as Keras's layers do
    assert all(np.array_equal(a, b) for a, b in zip(first, model.get_weights(), strict=True))
    model.fit(X, Y, batch_size=8, verbose=0)
    found = {name: weight.array for name, weight in write_back(model, proto).weights.items()}
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    moved = {name for name, array in given.items() if not np.array_equal(array, found[name])}
    assert moved == {"w", "gamma", "beta", "mean", "var", "dense"}
    model.set_weights(first)  # what EarlyStopping does with the best ones
    assert write_back(model, proto).weights["mean"].array.tolist() == given["mean"].tolist()


def test_what_is_frozen_stays() -> None:
    proto = _batchnorm()
    layer = to_keras(proto).get_layer("onnx")
    layer.trainable = False
    image = keras.Input((1, 28, 28))
    around = _compiled(keras.Model(image, keras.layers.Dense(10)(layer(image))))
    around.fit(X, Y, verbose=0)
    assert write_back(around, proto).to_proto() == proto


def test_keras_saves_and_loads_it_without_pickles(tmp_path: Path) -> None:
    proto = _batchnorm(1)
    model = _compiled(to_keras(proto))
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert write_back(again, proto).to_bytes() == write_back(model, proto).to_bytes()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["onnxprune.torch.keras"].__file__ or ""
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "tensorflow")
        with pytest.raises(UsageError, match=r"Keras computes with tensorflow here.*set KERAS_BACKEND=torch"):
            runpy.run_path(module)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UsageError, match="this needs Keras 3; "):
        runpy.run_path(module)
