"""The package itself: its public names, what importing it loads, and running it from a checkout."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import onnxprune
from onnxprune.errors import installing

ROOT = Path(__file__).parents[1]

CHECKOUT = """
import sys
# As if nothing were installed: the finder of an editable installation would know of passes/, too.
sys.meta_path[:] = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
"""


def _python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHECKOUT + script], cwd=ROOT, capture_output=True, text=True)


def test_every_public_name_is_there() -> None:
    assert {"load", "normalize", "analyze", "plan", "apply", "verify", "compress", "OnnxPruneError"} <= set(
        dir(onnxprune)
    )
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = onnxprune.nothing_of_the_kind


@pytest.mark.parametrize("module", ["onnxprune", "onnxprune.cli.app"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = {"torch", "pandas", "networkx", "numpy", "onnx", "onnxruntime", "scipy"}
    result = _python(f"import {module}; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    assert not heavy.intersection(result.stdout.split())


def test_planning_and_removing_load_what_they_need() -> None:
    """Explanations, certificates and comparisons of answers need more; imports were most of a small model's time."""
    model = str(Path(__file__).parents[1] / "models" / "residual_torchscript.onnx")
    work = f"model = {model!r}; onnxprune.apply(model, onnxprune.plan(model, reduce=0.3))"
    result = _python(f"import sys, onnxprune; {work}; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    unused = {"torch", "pandas", "networkx", "onnxruntime", "scipy.spatial", "scipy.ndimage", "scipy.optimize"}
    assert not unused.intersection(result.stdout.split())


def test_a_checkout_finds_its_passes() -> None:
    result = _python("import onnxprune.passes.base as found; print(found.__file__)")
    assert result.stdout.strip() == str(ROOT / "passes" / "base.py"), result.stderr


@pytest.mark.parametrize("module", ["onnxprune.onnxprune", "onnxprune.tests", "onnxprune.models"])
def test_a_checkout_is_not_inside_its_package(module: str) -> None:
    result = _python(f"import {module}")
    assert "ModuleNotFoundError" in result.stderr


def test_every_room_is_packaged() -> None:
    """What is not listed is in a checkout and missing in a wheel."""
    root = Path(__file__).parents[1]
    rooms = {".".join(found.parent.relative_to(root).parts) for found in (root / "onnxprune").rglob("__init__.py")}
    listed = re.findall(r'^    "(onnxprune[\w.]*)",$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted({*rooms, "onnxprune.passes"})


def test_what_is_missing_is_named_by_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index has to know onnxprune for the advice to work."""
    assert re.fullmatch(r"install it with: pip install 'torch>=\S+' 'safetensors>=\S+'", installing("torch"))
    assert installing("nothing") == "it belongs to the extra 'nothing'"

    def absent(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", absent)
    assert installing("torch") == "it belongs to the extra 'torch'"


def test_a_checkout_has_no_version_of_its_own() -> None:
    assert _python("import onnxprune; print(onnxprune.__version__)").stdout.strip()
    hidden = "from importlib import metadata\n"
    hidden += "def version(name): raise metadata.PackageNotFoundError(name)\nmetadata.version = version\n"
    assert _python(hidden + "import onnxprune; print(onnxprune.__version__)").stdout.strip() == "unknown"
