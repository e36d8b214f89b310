"""The documentation tells the truth: its code runs, its table is that of the registry, its commands are those of CI."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import onnxprune
from onnxprune.ops import default_registry
from onnxprune.pruning.widths import block

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

SITE = runpy.run_path(str(ROOT / "docs" / "site.py"))

_MARKED = re.compile(r"^<!-- run: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def scripts() -> dict[str, str]:
    """The worked examples of CONTRIBUTING by name; blocks of one name belong to one script."""
    found: dict[str, str] = {}
    for name, code in _MARKED.findall(CONTRIBUTING):
        found[name] = found.get(name, "") + code
    return found


def block_after(marker: str) -> str:
    """The content of the code block that follows an HTML comment of the README."""
    match = re.search(rf"^<!-- {marker} -->\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert match is not None, f"README lacks the block {marker!r}"
    return match.group(1)


def without_roundoff(page: str) -> str:
    """The page without what depends on the processor.

    That is the differences that a certificate measures, what is chosen and what outputs are like where activations
    decide (they are rounded otherwise), and times.
    """
    page = re.sub(r"^Time of a run:.*?^Wrote", "Time #\nWrote", page, flags=re.MULTILINE | re.DOTALL)
    page = re.sub(r"^(Output '\w+' on).*?^Wrote[^\n]*", r"\1 #", page, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\d\.?\d*e-\d\d", "#", page)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that holds the reference models and their samples, and may be written to."""
    (tmp_path / "models").mkdir()
    for kind in ("*.onnx", "*.npz"):
        for file in (ROOT / "models").glob(kind):
            shutil.copy(file, tmp_path / "models")
    return tmp_path


@pytest.mark.parametrize("name", scripts())
def test_the_worked_examples_run(name: str, checkout: Path) -> None:
    # In a process of its own, as a reader would: an example may register things for the whole process.
    command = [sys.executable, "-X", "utf8", "-c", scripts()[name]]
    result = subprocess.run(command, cwd=checkout, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("page", ["pipelines", "torch_code", "keras", "splitting"])
def test_what_a_page_shows_runs(page: str, checkout: Path) -> None:
    if page == "keras" and find_spec("keras") is None:
        pytest.skip("Keras is not installed")
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for language, shown in blocks:
        command = [sys.executable, "-X", "utf8", "-c", shown]
        if language == "sh":
            program, *arguments = shlex.split(shown.replace("\\\n", " "))
            command = [sys.executable, "-X", "utf8", "-m", program, *arguments]
        result = subprocess.run(command, cwd=checkout, capture_output=True, encoding="utf-8")
        assert result.returncode == 0, result.stderr


def test_every_python_block_of_contributing_is_run() -> None:
    assert len(_PYTHON.findall(CONTRIBUTING)) == len(_MARKED.findall(CONTRIBUTING))


@pytest.mark.skipif(block() != 16, reason="default widths follow from the processor; the README's has AVX-512")
def test_the_examples_of_the_readme_print_what_it_says() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "readme_outputs.py"))["readme"](README)
    assert without_roundoff(page) == without_roundoff(README), "run: python docs/readme_outputs.py"


def test_the_table_of_operators_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "operators.py"))["page"]()
    written = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert written == page, "run: python docs/operators.py"


def test_the_table_of_operators_is_complete() -> None:
    written = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for domain, op_type, _, _ in default_registry().supported():
        name = f"{domain}.{op_type}" if domain else op_type
        assert f"`{name}`" in written


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "reference_cli.py"))["page"]()
    written = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert written == page, "run: python docs/reference_cli.py"


def test_the_reference_of_the_command_line_tells_options_apart() -> None:
    """A rare one, a required one, one of a few words, and what follows an option that has an example."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    prune = page.partition("### onnxprune prune\n")[2].partition("\n### ")[0]
    rows = {row.split("`")[1]: row for row in prune.splitlines() if row.startswith("| `")}
    assert "*(required)*" in rows["MODEL"]
    assert rows["--output"].startswith("| `--output`, `-o` `FILE` |")
    assert rows["--reduce"].startswith("| `--reduce` `0.5` |")
    assert "*(rare)*" in rows["--split"]
    assert rows["--mode"].endswith("| `flops` |")
    assert "`debug\\|info\\|warning\\|error`" in page


def test_the_reference_of_python_has_every_public_name() -> None:
    written = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: onnxprune\.(\w+)$", written, re.MULTILINE)
    assert sorted(named) == sorted(set(onnxprune.__all__) - {"__version__"})


def test_the_site_has_every_page() -> None:
    listed = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(pages | {*SITE["PAGES"].values(), "reference/plan_schema.md"})


@pytest.mark.parametrize(
    ("source", "page", "link", "becomes"),
    [
        ("README.md", "index.md", "[a](docs/method.md#words)", "[a](method.md#words)"),
        ("README.md", "index.md", "[a](LICENSE)", "a"),
        ("docs/method.md", "method.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/reference/api.md", "reference/api.md", "[a](../plan.md)", "[a](../plan.md)"),
        ("docs/zoo.md", "zoo.md", "in [a](zoo.csv).", "in a."),
        ("docs/zoo.md", "zoo.md", "![a](retention.svg)", "![a](retention.svg)"),
        ("docs/zoo.md", "zoo.md", "[a](https://onnx.ai) [b](#c)", "[a](https://onnx.ai) [b](#c)"),
        ("docs/zoo.md", "zoo.md", "[a](nowhere.md)", "[a](nowhere.md)"),  # mkdocs refuses it
        ("docs/zoo.md", "zoo.md", "```python\n[a](zoo.csv)\n```\n", "```python\n[a](zoo.csv)\n```\n"),
    ],
)
def test_links_work_on_the_site(source: str, page: str, link: str, becomes: str) -> None:
    assert SITE["relinked"](link, source, page, lambda name: name.endswith(".md"), None) == becomes


def test_files_off_the_site_are_shown_where_the_repository_is() -> None:
    relinked = SITE["relinked"]("[a](zoo.csv)", "docs/zoo.md", "zoo.md", lambda name: False, "https://host.invalid/it/")
    assert relinked == "[a](https://host.invalid/it/blob/main/docs/zoo.csv)"


def test_a_function_without_its_arguments_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="reference/api.md"))
    label = '<small class="doc-label doc-label-module-attribute">'
    html = f'<h3 id="onnxprune.load">load</h3>:func:<code>plan</code><h3 id="onnxprune.plan">{label}</h3>'
    assert ":func:" not in SITE["on_page_content"](html, page, None, None)
    assert [record.getMessage().split("'")[1] for record in caplog.records] == ["onnxprune.plan"]


def test_the_citation_is_of_the_newest_version() -> None:
    newest = re.search(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert f"\nversion: {newest[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = block_after("quick start: test").strip().split(" && ")
    assert steps[0].startswith("python3 -m venv")
    for step in steps[1:]:
        command = re.sub(r"\S+/bin/", "", step)
        assert command.replace("pip install", "pip install --quiet") in script or command in script


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readme_is_one_screen_of_what_and_why() -> None:
    assert len(README.splitlines()) <= 150


def test_the_training_examples_run_and_do_not_harm(checkout: Path) -> None:
    """With the committed sample in place of the data set: pixels are what the models take, so they know it before."""
    pytest.importorskip("torch")
    first, second = block_after("training: run").strip().splitlines()
    source = "models/residual_torchscript.onnx"
    common = [sys.executable, "-X", "utf8", "-m"]
    data = f"{ROOT / 'models' / 'fashion_sample.npz'}?holdout=0.5"
    words = shlex.split(first.replace("smaller.onnx", source).replace("/usr/share/datasets/fashion-mnist", data))
    words += ["--json", "--epochs", "1"]
    result = subprocess.run([*common, *words], cwd=checkout, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["before"]["accuracy"] > 0.85
    assert told["after"]["accuracy"] > told["before"]["accuracy"] - 0.05
    words = [*shlex.split(second.replace("/usr/share/datasets/fashion-mnist", f"{data}&limit=64")), "--epochs", "1"]
    result = subprocess.run([*common, *words], cwd=checkout, capture_output=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
