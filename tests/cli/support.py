"""Running the command line, and the small or broken models to run it on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from onnxprune.cli.app import app

MODELS = Path(__file__).parents[2] / "models"
RESIDUAL = MODELS / "residual_torchscript.onnx"
VGG = MODELS / "vgg_torchscript.onnx"


def run(*words: object, columns: int | None = None) -> Any:
    """The result of one command: ``exit_code``, ``stdout`` and ``stderr``."""
    env = {"COLUMNS": None if columns is None else str(columns), "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [str(word) for word in words], env=env)
    if "--json" in words and result.stdout:
        as_promised(str(words[0]), json.loads(result.stdout))
    return result


def as_promised(command: str, told: dict[str, Any]) -> None:
    """Hold what a command printed against the schema that the package publishes: every key is there, and no other."""
    validator = jsonschema.Draft202012Validator(strict("error" if told.keys() == {"error"} else command))
    error = jsonschema.exceptions.best_match(validator.iter_errors(told))
    where = "" if error is None else f"{command} --json at {error.json_path}: {error.message[:500]}"
    assert error is None, f"{where}; docs/json_schemas.py has to tell what is there: change it there, and run it"


@cache
def strict(command: str) -> dict[str, Any]:
    """The schema of a command's output that takes no keys but those it names."""
    text = files("onnxprune.cli").joinpath("output.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    for part in schema["$defs"].values():
        if "properties" in part:
            part["additionalProperties"] = False
    return {**schema, "$ref": f"#/$defs/{command}"}


def done(*words: object, columns: int | None = None) -> str:
    """The output of a command that succeeds."""
    result = run(*words, columns=columns)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def done_json(*words: object) -> dict[str, Any]:
    """The JSON document that a command prints, alone on stdout."""
    found: dict[str, Any] = json.loads(done(*words, "--json"))
    return found


def refused(code: int, *words: object) -> str:
    """The one message of a command that fails with ``code``."""
    result = run(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, "one message is one line"
    return str(result.stderr)


def process(
    *words: object, script: str = "from onnxprune.cli import main; main()", binary: bool = False, **options: Any
) -> Any:
    """A command in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=not binary, timeout=120, check=False, **options)


def conv(source: str, target: str, filters: int, inputs: int) -> tuple[NodeProto, TensorProto]:
    """A 3×3 convolution named after its output, and its weight."""
    values = np.random.default_rng(len(target)).standard_normal((filters, inputs, 3, 3)).astype(np.float32)
    weight = numpy_helper.from_array(values, f"{target}.weight")
    node = helper.make_node("Conv", [source, weight.name], [target], name=f"conv_{target}", pads=[1, 1, 1, 1])
    return node, weight


def node(op_type: str, sources: Sequence[str], target: str, **attributes: Any) -> NodeProto:
    """A node named after its operator and output."""
    return helper.make_node(op_type, sources, [target], name=f"{op_type}_{target}", **attributes)


def model(*parts: NodeProto | tuple[NodeProto, TensorProto], constants: Sequence[TensorProto] = ()) -> ModelProto:
    """A model from ``x`` (1, 3, 8, 8) to ``y`` of any size."""
    pairs = [part for part in parts if isinstance(part, tuple)]
    nodes = [part[0] if isinstance(part, tuple) else part for part in parts]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [*(weight for _, weight in pairs), *constants],
    )
    domains = {part.domain for part in nodes if part.domain}
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(folder: Path, proto: ModelProto, name: str = "model.onnx") -> Path:
    """Write a model, valid or not."""
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def two_convs() -> ModelProto:
    """x → 8 channels → ReLU → 4 channels → y."""
    return model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))


def external_without_data(folder: Path) -> Path:
    """A model whose external data are gone."""
    path = folder / "model.onnx"
    onnx.save(two_convs(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").unlink()
    return path
