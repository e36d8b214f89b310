"""Import paths that the documentation showed before modules had rooms still lead to what they led to, and say so."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

import onnxprune
import onnxprune.passes

SHOWN = {
    "allocation": "allocation",
    "calibration": "collect",
    "certificate": "verify",
    "compensation": "compensate",
    "cost": "CostModel",
    "coupling": "Coupling",
    "criteria": "as_criterion",
    "evaluation": "evaluate",
    "fidelity": "Fidelity",
    "graph": "Node",
    "model": "load",
    "planning": "plan",
    "plans": "Plan",
    "relations": "Relations",
    "rewrite": "ShrinkRewriter",
    "shapes": "infer_shapes",
    "weights": "Weight",
}


@pytest.mark.parametrize(("module", "name"), SHOWN.items())
def test_an_old_path_gives_the_very_object_of_the_new_one(module: str, name: str) -> None:
    home = f"onnxprune.{onnxprune._MOVED[module]}"
    with pytest.warns(DeprecationWarning, match=rf"onnxprune\.{module} is now {home};") as caught:
        exec(f"from onnxprune.{module} import {name} as found", space := {})
    assert space["found"] is getattr(import_module(home), name)
    assert [warning.filename for warning in caught] == ["<string>"]  # the line that imports, not the library's


def test_a_renamed_class_is_there_under_its_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"onnxprune\.Runtime is now onnxprune\.LocalMachine;") as caught:
        assert onnxprune.Runtime is onnxprune.LocalMachine
    assert [warning.filename for warning in caught] == [__file__]


def test_every_old_path_is_tested() -> None:
    assert set(SHOWN) == set(onnxprune._MOVED)


def test_an_old_path_has_no_more_than_the_new_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImportError, match="nothing_of_the_kind"):
            exec("from onnxprune.relations import nothing_of_the_kind")


def test_all_ways_to_import_a_module_work() -> None:
    script = (
        "import onnxprune.graph, onnxprune.relations as relations\n"
        "from onnxprune import certificate\n"
        "print(onnxprune.graph.Node.__module__, relations.Relations.__module__, certificate.verify.__module__)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    homes = ["onnxprune.ir.graph", "onnxprune.ops.relations", "onnxprune.pruning.certificate.verifying"]
    assert result.stdout.split() == homes


def test_the_library_itself_uses_no_old_path() -> None:
    names = "|".join(onnxprune._MOVED)
    old = re.compile(rf"(from|import) onnxprune\.({names})\b|from onnxprune import .*\b({names})\b")
    folders = (Path(onnxprune.__file__).parent, Path(onnxprune.passes.__file__).parent)
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert files
    assert not [path for path in files if old.search(path.read_text(encoding="utf-8"))]
