"""A model's digest: the same in every process, and another as soon as anything differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.ir.digest import model_digest

SCRIPT = """
import sys, onnxprune
from onnxprune.ir.digest import model_digest
print(model_digest(onnxprune.load(sys.argv[1])))
"""


def _with_strings(words: list[str]) -> onnx.ModelProto:
    strings = numpy_helper.from_array(np.array(words, dtype=object), "words")
    floats = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Identity", ["words"], ["names"])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [4]),
        helper.make_tensor_value_info("names", TensorProto.STRING, [len(words)]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [strings, floats])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_three_processes_one_digest(tmp_path: Path) -> None:
    path = tmp_path / "strings.onnx"
    onnx.save(_with_strings(["a cat", "a dog"]), path)
    run = [sys.executable, "-c", SCRIPT, str(path)]
    found = {subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() for _ in range(3)}
    assert found == {model_digest(onnxprune.load(path))}


def test_a_digest_depends_on_everything_but_the_place(tmp_path: Path) -> None:
    proto = _with_strings(["a cat", "a dog"])
    known = {model_digest(onnxprune.load(proto))}
    assert model_digest(onnxprune.load(_with_strings(["a cat", "a cow"]))) not in known
    changed = _with_strings(["a cat", "a dog"])
    changed.graph.initializer[1].raw_data = np.arange(1, 5, dtype=np.float32).tobytes()
    assert model_digest(onnxprune.load(changed)) not in known
    path = tmp_path / "outside.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="outside.data", size_threshold=0)
    assert model_digest(onnxprune.load(path)) in known
