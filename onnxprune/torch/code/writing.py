"""The folder with a model's code: its module, the functions that it calls, and its weights."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import torch
from torch import fx, nn

from onnxprune.errors import ConversionError, UsageError, installing
from onnxprune.ir.model import ModelLike
from onnxprune.ir.session import random_inputs
from onnxprune.torch.base import Converters
from onnxprune.torch.builder import Builder
from onnxprune.torch.code.blocks import blocks_of
from onnxprune.torch.code.classes import Writer, outputs_of
from onnxprune.torch.code.helpers import sources
from onnxprune.torch.code.layout import WIDTH, flat, said
from onnxprune.torch.code.spelling import INFIX, Speller
from onnxprune.torch.layouts import Held
from onnxprune.torch.module import built

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-5
_PACKAGE = "onnxprune_written_code"


@dataclass(frozen=True)
class Written:
    """A model as code.

    Attributes:
        files: texts by path below the folder.
        values: of its parameters and buffers, by key; of those that are one, the first.
        keys: all keys of its ``state_dict``.
        names: where it holds each initialiser.
        module: the same as a graph of PyTorch.
        inputs: what it can be run with, in the order of its arguments.
    """

    files: Mapping[str, str]
    values: Mapping[str, torch.Tensor]
    keys: frozenset[str]
    names: Mapping[str, Held]
    module: fx.GraphModule
    inputs: Sequence[torch.Tensor]


def to_code(model: ModelLike, folder: str | Path, *, registry: Converters | None = None) -> Path:
    """Write a model as PyTorch code that people read, with its weights beside it.

    The folder is a package that needs PyTorch and safetensors, and nothing of onnxprune: ``model.py`` with the class
    ``Model`` and ``load()``, ``weights.safetensors``, and ``functions/`` where PyTorch has none of the same meaning.
    Modules are called as in the file, and blocks are modules where names say so. ``write_back`` takes a trained one, or
    its ``state_dict``. Before the folder appears, its code is run beside ``to_module``.

    Args:
        model: a Model, ModelProto or path; it is normalised first and not changed.
        folder: a new one, whose name can be imported.
        registry: the known converters, if not the default ones.

    Returns:
        The folder.

    Raises:
        ConversionError: as ``to_module``; or a node cannot be written as code, or the code computes something else.
        UsageError: the folder is there, or its name cannot be imported, or it cannot be written.
    """
    target = Path(folder)
    check_folder(target)
    code = written(model, registry)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            made = Path(scratch, target.name)
            _save(code, made)
            with imported(made) as package:
                _check(code, package.load())
            shutil.rmtree(made / "__pycache__", ignore_errors=True)
            shutil.rmtree(made / "functions" / "__pycache__", ignore_errors=True)
            made.rename(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def check_folder(folder: Path) -> None:
    """Refuse a folder that code cannot be written to. Raises UsageError."""
    if not folder.name.isidentifier():
        raise UsageError(f"the folder '{folder.name}' cannot be imported; use letters, digits and underscores")
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is there; give another name, or remove it first")
    if not folder.parent.is_dir():
        raise UsageError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")


def written(model: ModelLike, registry: Converters | None = None) -> Written:
    """A model as code. Raises ConversionError."""
    return _of(built(model, registry))


def _of(builder: Builder) -> Written:
    _inline_numbers(builder)
    speller = Speller()
    # What is made alike is compared as text; what that needs is asked for again where it is written.
    root, leaves = blocks_of(builder, lambda module: _constructor(Speller(), module))
    writer = Writer(builder, leaves, speller)
    writer.model(root)
    files = {"model.py": _module_text(builder, writer), "__init__.py": _INIT, "ruff.toml": f"line-length = {WIDTH}\n"}
    if speller.helpers:
        files["functions/__init__.py"] = '"""What PyTorch has no function for."""\n'
        files.update((f"functions/{name}.py", text) for name, text in sources(speller.helpers).items())
    names = {
        name: Held(tuple(writer.keys[key] for key in held.keys), held.layout) for name, held in builder.names.items()
    }
    module = fx.GraphModule(builder.root, builder.fx)
    return Written(files, _values(builder, writer), frozenset(writer.keys.values()), names, module, _inputs(builder))


def conversions(model: ModelLike) -> tuple[tuple[Mapping[str, Held], set[str]], tuple[Mapping[str, Held], set[str]]]:
    """Where ``to_module`` and where ``to_code`` hold each initialiser, and all keys of their ``state_dict``."""
    builder = built(model)
    plain = dict(builder.names), set(builder.root.state_dict())
    try:
        code = _of(builder)
    except ConversionError:
        return plain, plain
    return plain, (code.names, set(code.keys))


def _constructor(speller: Speller, module: nn.Module) -> str:
    try:
        return flat(speller.constructor(module))
    except ConversionError:
        return f"{id(module)}"  # like no other; it is refused where it is written


def _inline_numbers(builder: Builder) -> None:
    """Single-precision numbers without dimensions, in sums and products, become literals."""
    for node in [n for n in builder.fx.nodes if n.op == "get_attr"]:
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(builder.root.get_submodule(owner), name)
        if isinstance(value, nn.Parameter) or value.dtype != torch.float32 or value.dim():
            continue
        for user in list(node.users):
            others = [a for a in user.args if a is not node]
            if user.target in INFIX and not user.kwargs and any(isinstance(a, fx.Node) for a in others):
                user.args = tuple(value.item() if a is node else a for a in user.args)
        if not node.users:
            builder.fx.erase_node(node)


def _values(builder: Builder, writer: Writer) -> dict[str, torch.Tensor]:
    first: dict[int, str] = {}
    found: dict[str, torch.Tensor] = {}
    for key, value in builder.root.state_dict(keep_vars=True).items():
        if key in writer.keys and first.setdefault(id(value), key) == key:
            found[writer.keys[key]] = value.detach().contiguous()
    return found


def _inputs(builder: Builder) -> list[torch.Tensor]:
    shapes = builder.graph.shapes
    known = {name: shapes.extents[name] for name in builder.graph.inputs if name in shapes.extents}
    fixed = {name: tuple(int(n) for n in extents) for name, extents in known.items()}
    arrays = random_inputs(builder.graph.model, fixed, 0)
    return [torch.from_numpy(np.array(arrays[name])) for name in builder.graph.inputs if name in arrays]


_INIT = '''"""The model as PyTorch code: ``load()`` gives it with its weights."""

from .model import Model, load

__all__ = ["Model", "load"]
'''

_LOAD = '''WEIGHTS = Path(__file__).with_name("weights.safetensors")


def load(weights: str | Path = WEIGHTS) -> Model:
    """The model with its weights, in eval mode."""
    model = Model()
    load_model(model, weights)
    return model.eval()
'''


def _module_text(builder: Builder, writer: Writer) -> str:
    classes = "\n\n".join([*writer.text(), _LOAD])
    standard = ["from pathlib import Path"]
    if writer.uses_ordered:
        standard.insert(0, "from collections import OrderedDict")
    if "Any" in classes:
        standard.append("from typing import Any")
    plain = sorted(f"import {name}" for name in writer.speller.imports if name == "math")
    others = sorted(f"import {name}" for name in writer.speller.imports if name != "math")
    torches = ["import torch"] if "torch." in classes else []
    torches += ["from safetensors.torch import load_model", "from torch import Tensor, nn"]
    if " F." in classes or "(F." in classes:
        torches.append("from torch.nn import functional as F")
    own = sorted({name.rpartition(".")[0] for name in writer.speller.called})
    parts = [[*plain, *standard], [*others, *torches], [f"from .functions import {', '.join(own)}"] if own else []]
    imports = "\n\n".join("\n".join(part) for part in parts if part)
    return f'"""{_about(builder)}"""\n\nfrom __future__ import annotations\n\n{imports}\n\n\n{classes}'


def _about(builder: Builder) -> str:
    graph = builder.graph.model.graph
    weights = builder.graph.model.weights
    given = [_described(value) for value in graph.input if value.name not in weights]
    results = [_described(value) for value in graph.output]
    return "\n".join(
        [
            f"The network {said(graph.name) or 'of an ONNX file'}.",
            "",
            "Inputs, in this order:",
            *given,
            "",
            "Results:",
            *results,
            "",
        ]
    )


def _described(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    word = onnx.TensorProto.DataType.Name(kind.elem_type).lower() if kind.elem_type else "values"
    extents = ", ".join(
        said(d.dim_param) or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in kind.shape.dim
    )
    return f"    {said(value.name)}: {word} ({extents})"


def _save(code: Written, folder: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise UsageError(f"writing code needs safetensors; {installing('torch')}") from error
    folder.mkdir()
    for name, text in code.files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    save_file({key: value.clone() for key, value in code.values.items()}, folder / "weights.safetensors")


@contextmanager
def imported(folder: Path) -> Iterator[ModuleType]:
    """A folder of code as a package, for as long as the context lasts."""
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    try:
        spec.loader.exec_module(package)
        yield package
    finally:
        for name in [n for n in sys.modules if n == _PACKAGE or n.startswith(f"{_PACKAGE}.")]:
            del sys.modules[name]


def _check(code: Written, module: nn.Module) -> None:
    """Run the code beside the graph that it was made of. Raises ConversionError where they differ."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            wanted = outputs_of(code.module.eval(), code.inputs)
        except (RuntimeError, IndexError, ValueError, TypeError):
            _LOG.warning("the code was not run: the model does not take inputs made at random")
            return
        torch.manual_seed(0)
        found = outputs_of(module, code.inputs)
    for number, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype or not _close(a, b):
            raise ConversionError(f"the written code computes something else at output {number}; please report this")


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = a.double(), b.double()
    scale = float(a[a.isfinite()].abs().max()) if a.isfinite().any() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE * max(scale, 1e-30), equal_nan=True)
