"""What SECURITY.md promises of the source: nothing in it runs what a file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "onnxprune").rglob("*.py"), *(ROOT / "passes").rglob("*.py")]
FORBIDDEN_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml"})
FORBIDDEN_CALLS = frozenset({"eval", "exec", "compile", "__import__"})
IMPORTS = frozenset(
    {
        "__init__.py",
        "exploration/__init__.py",
        "exploration/clusters.py",
        "data/loaders.py",
        "ops/registry.py",
        "passes/registry.py",
        "splitting/__init__.py",
    }
)
"""Where modules are imported by name: our own, backends, data of ``module:function``, plugins, and passes."""


def faults(source: str) -> Iterator[str]:
    """What a module does that could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {a.name}" for a in node.names if a.name.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            yield f"imports {node.module}"
        elif isinstance(node, ast.Call):
            yield from _fault_of_call(node)


def _fault_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in FORBIDDEN_CALLS:
        yield f"calls {name}"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if name == "np.load" and given.get("allow_pickle") != "False":
        yield "np.load without allow_pickle=False"
    if given.get("shell") == "True" or name in ("os.system", "os.popen"):
        yield "starts a shell"
    if "allow_pickle" in given and given["allow_pickle"] != "False":
        yield "allows pickles"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_a_file_says(path: Path) -> None:
    assert not list(faults(path.read_text(encoding="utf-8")))


def test_modules_are_imported_by_name_in_known_places_only() -> None:
    found = {
        str(path.relative_to(ROOT)).removeprefix("onnxprune/")
        for path in SOURCES
        if "import_module" in path.read_text(encoding="utf-8")
    }
    assert found <= IMPORTS


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.memmap(path, allow_pickle=flag)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
    ],
)
def test_faults_are_noticed(source: str) -> None:
    assert list(faults(source))
