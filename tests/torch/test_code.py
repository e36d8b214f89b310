"""Models as PyTorch code: what it computes, how it reads, and what a file's names can do to it."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

import onnxprune
from onnxprune.errors import ConversionError, UsageError
from onnxprune.torch import Converter, default_registry, to_code, to_module, write_back
from onnxprune.torch.code.writing import imported
from tests.cli.support import conv, model, node
from tests.helpers import GraphBuilder

from .support import assert_same, feeds, run_onnx
from .test_hostile_names import WAYS_OUT

MODELS = Path(__file__).parents[2] / "models"
NETWORKS = sorted(path.stem for path in MODELS.glob("*.onnx"))


def outputs(module: torch.nn.Module, inputs: dict[str, np.ndarray]) -> list[torch.Tensor]:
    with torch.no_grad():
        found = module(*(torch.from_numpy(np.array(value)) for value in inputs.values()))
    return [found] if isinstance(found, torch.Tensor) else list(found)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_outputs_in_code_that_is_formatted(tmp_path: Path, name: str) -> None:
    path = MODELS / f"{name}.onnx"
    folder, inputs = to_code(path, tmp_path / "code"), feeds(path)
    with imported(folder) as package:
        module = package.load()
        assert_same(run_onnx(path, inputs), outputs(module, inputs), 1e-5)
        assert write_back(module.state_dict(), path).to_proto() == onnxprune.load(path).to_proto()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.01)
        assert_same(run_onnx(write_back(module, path), inputs), outputs(module, inputs))
    assert not list(folder.rglob("__pycache__")) or shutil.rmtree(folder / "__pycache__") is None
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}:{sys.path[0]}") or shutil.which("ruff")
    if ruff is not None:
        for command in (["format", "--check"], ["check"]):
            done = subprocess.run([ruff, *command, "--no-cache", str(folder)], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_reads_as_people_write_it(tmp_path: Path) -> None:
    text = (to_code(MODELS / "residual_torchscript.onnx", tmp_path / "net") / "model.py").read_text()
    assert "image: float (batch, 1, 28, 28)" in text
    assert "self.stages = nn.Sequential(Stages_0(), Stages_0(), Stages_2(), Stages_3(), Stages_4())" in text
    assert "self.first = nn.Conv2d(16, 16, 3, padding=1)" in text
    assert "add = second + x" in text


def test_what_users_do_with_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_code(MODELS / "depthwise_dynamo.onnx", tmp_path / "written_network")
    monkeypatch.syspath_prepend(str(tmp_path))
    import written_network  # type: ignore[import-not-found]

    torch.manual_seed(0)
    module, x = written_network.load(), torch.randn(2, 1, 28, 28)
    wanted = module(x)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(exported.module()(torch.cat([x, x]))[:2], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(x), wanted)
    torch.save(module, tmp_path / "saved.pt")
    torch.testing.assert_close(torch.load(tmp_path / "saved.pt", weights_only=False)(x), wanted)
    torch.testing.assert_close(copy.deepcopy(module)(x), wanted)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.001)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(module(x), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in module.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", WAYS_OUT, ids=ascii)
def test_names_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))
    text = {"x": f"{name} x", "a": f"{name}.a", "b": name, "a.weight": f"{name}.w.weight", "y.weight": f"{name} weight"}
    for value in (*proto.graph.input, *proto.graph.initializer):
        value.name = text[value.name]
    for number, each in enumerate(proto.graph.node):
        each.name = f"/{name}/{name}.{number}/{each.name}"
        each.input[:] = [text[read] for read in each.input]
        each.output[:] = [text.get(made, made) for made in each.output]
    proto.graph.name = f'{name}"""\n{name}\\'
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    entry = proto.graph.node[1].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", repr(["", name, f"{name}.{name}", name])
    onnx.checker.check_model(proto)
    folder = to_code(proto, tmp_path / "code")
    x = torch.randn(1, 3, 8, 8)
    with imported(folder) as package:
        torch.testing.assert_close(package.load()(x), to_module(proto)(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code"]
    compile((folder / "model.py").read_text(encoding="ascii"), "model.py", "exec")


def test_tied_and_uncalled_weights(tmp_path: Path) -> None:
    g = GraphBuilder(17)
    x = g.input("x", (2, 4))
    shared, scale = g.weight(4, 4), g.weight(1, 4)
    h = g.op("Mul", g.op("Gemm", x, shared, transB=1), scale)
    g.output(g.op("Gemm", g.op("Relu", h), shared, transB=1))
    proto = g.model()
    with imported(to_code(proto, tmp_path / "code")) as package:
        module = package.load()
        assert len(list(module.parameters())) == 2
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(2)
        inputs = feeds(proto)
        assert_same(run_onnx(write_back(module, proto), inputs), outputs(module, inputs))


def test_refusals_name_the_node(tmp_path: Path) -> None:
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "y"))
    proto.graph.node[1].name = "the activation"
    registry = default_registry().extended(
        Converter("Twice", lambda n, b: b.call(lambda x: 2 * x, b.tensor(n, 0)), domain="my")
    )
    proto.opset_import.add(domain="my", version=1)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Twice", "my"
    with pytest.raises(ConversionError, match=r"the activation.*cannot be written as PyTorch code"):
        to_code(proto, tmp_path / "code", registry=registry)
    with pytest.raises(UsageError, match="cannot be imported"):
        to_code(proto, tmp_path / "no-name")
    with pytest.raises(UsageError, match="is there"):
        to_code(proto, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_if_is_refused_by_its_name(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    either (float[2, 4] x, bool flag) => (float[2, 4] y) {
        y = If (flag) <
            then_branch = one () => (float[2, 4] a) { a = Relu(x) },
            else_branch = other () => (float[2, 4] b) { b = Neg(x) }>
    }""")
    proto.graph.node[0].name = "the choice"
    with pytest.raises(ConversionError, match=r"the choice.*cannot be written as PyTorch code"):
        to_code(proto, tmp_path / "code")
    assert not list(tmp_path.iterdir())


def test_code_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.torch.code import spelling

    monkeypatch.setattr(spelling, "INFIX", {**spelling.INFIX, torch.add: "-"})
    with pytest.raises(ConversionError, match="something else"):
        to_code(MODELS / "residual_torchscript.onnx", tmp_path / "code")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_model() -> None:
    state = to_module(MODELS / "unet_dynamo.onnx").state_dict()
    with pytest.raises(ConversionError, match="the model that it was made of"):
        write_back(state, MODELS / "residual_torchscript.onnx")
