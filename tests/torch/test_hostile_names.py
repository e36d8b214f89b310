"""PyTorch writes a module's forward as source text, with the names of its parts in it: names of a file are no code."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import onnxprune.torch as bridge
from tests.cli.support import conv, model, node

WAYS_OUT = (
    'a"if open("sprung","w")else"b',
    'a"),__import__("os").mkdir("sprung"),("',
    'a", __import__("os").mkdir("sprung"))#',
    'a\\"),__import__("os").mkdir("sprung"),("',
    "a'),__import__('os').mkdir('sprung'),('",
    'a\n__import__("os").mkdir("sprung")\n#',
    "a\r\nimport os; os.mkdir('sprung')",
    "a;__import__('os')·mkdir('sprung')",
    'a"\u2028__import__("os").mkdir("sprung")',
    "a\0b",
    "a b",
    "🜁 ü",
    "class",
    "self",
    "ﬁ",
    "{0.__class__}",
    "%(name)s",
)


@pytest.mark.parametrize("name", WAYS_OUT, ids=ascii)
def test_names_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))
    text = {"x": f"{name} x", "a": f"{name} a", "b": name, "a.weight": f"{name} w", "y.weight": f"{name}.weight"}
    for value in (*proto.graph.input, *proto.graph.initializer):
        value.name = text[value.name]
    for each in proto.graph.node:
        each.name = f"{name} {each.name}"
        each.input[:] = [text[read] for read in each.input]
        each.output[:] = [text.get(made, made) for made in each.output]
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    module = bridge.to_module(proto)
    assert not os.listdir(tmp_path)
    got = module(torch.from_numpy(x))
    copy.deepcopy(module)(torch.from_numpy(x))
    back = bridge.write_back(module, proto)
    assert [w.name for w in back.to_proto().graph.initializer] == [w.name for w in proto.graph.initializer]
    assert not os.listdir(tmp_path)
    if "\0" not in name:  # onnxruntime ends names there
        import onnxruntime as ort

        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(back.to_proto())
