"""Modules that a run knows by ``--plugin``: their operators, criteria and passes, and no longer than the run."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onnxprune.cli.app import app
from onnxprune.errors import RegistryError
from onnxprune.ops import default_registry, registry
from onnxprune.pruning import criteria

MODEL = str(Path(__file__).parents[2] / "models" / "vgg_dynamo.onnx")
PLUGIN = """
import numpy as np

from onnxprune.ops import Operator
from onnxprune.passes import Pass, PassResult
from onnxprune.pruning.criteria import as_criterion


class Mystery(Operator):
    types = ("Mystery",)
    domain = "my"

    def relate(self, node, relations):
        relations.equal(node.inputs[0], 1, node.outputs[0], 1)


class Nothing(Pass):
    '''Do nothing.'''

    name = "nothing"

    def run(self, model):
        return PassResult(model, modified=False)


@as_criterion("alike")
def alike(scoring):
    return np.zeros(scoring.count)


OPERATORS, CRITERIA, PASSES = (Mystery,), (alike,), (Nothing,)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return str(path)


def test_a_run_knows_what_its_plugin_has(plugin: str, tmp_path: Path) -> None:
    command = ["prune", MODEL, "-o", str(tmp_path / "small.onnx"), "--reduce", "0.3", "--criterion", "alike"]
    assert CliRunner().invoke(app, command).exit_code == 2
    result = CliRunner().invoke(app, [*command, "--plugin", plugin])
    assert result.exit_code == 0, result.output
    assert "nothing" in CliRunner().invoke(app, ["passes", "--plugin", plugin]).output
    # ... and nobody after it.
    assert not os.environ.get(registry.PLUGINS)
    assert "nothing" not in CliRunner().invoke(app, ["passes"]).output
    assert "alike" not in criteria.default_registry().names


def test_worker_processes_know_it_by_the_environment(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ("my", "Mystery", 1, None)
    assert known not in default_registry().supported()
    monkeypatch.setenv(registry.PLUGINS, plugin)
    assert known in default_registry().supported()


def test_a_plugin_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["analyze", MODEL, "--plugin", "no_such_module"])
    assert result.exit_code == 2
    assert "plugin 'no_such_module' cannot be loaded" in result.output
    wrong = tmp_path / "wrong.py"
    wrong.write_text("OPERATORS = (int,)", encoding="utf-8")
    result = CliRunner().invoke(app, ["analyze", MODEL, "--plugin", str(wrong)])
    assert result.exit_code == 2
    assert "OPERATORS of plugin" in result.output


def test_installed_packages_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "onnxprune.ops.convolution:Conv", "onnxprune.operators")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    registry._contributed.cache_clear()
    try:
        with pytest.raises(RegistryError, match=r"ai\.onnx\.Conv is registered twice"):
            default_registry()
        broken = EntryPoint("mine", "onnxprune.ops.convolution:Missing", "onnxprune.operators")
        monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
        registry._contributed.cache_clear()
        with pytest.raises(RegistryError, match="entry point 'mine'"):
            default_registry()
    finally:
        monkeypatch.undo()
        registry._contributed.cache_clear()
