"""From an ONNX model to a PyTorch module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import fx

from onnxprune.errors import ConversionError
from onnxprune.ir.control_flow import DOMAIN, open_bodies
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import ModelLike
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.normalize import normalize
from onnxprune.torch.base import Converter, Converters
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import Held
from onnxprune.torch.ops import default_registry
from onnxprune.torch.program import Program

JUMPING = frozenset({torch.gt, torch.ge, torch.lt, torch.le, torch.sign, torch.floor, torch.ceil, torch.round})
"""Functions whose value jumps where an operand hardly changes."""


class OnnxModule(fx.GraphModule):
    """A ``torch.fx.GraphModule`` that knows where it holds each initialiser of the ONNX model it came from."""

    @property
    def onnx_names(self) -> dict[str, Held]:
        """Initialiser -> the ``state_dict`` keys that hold its values, and how they lie there."""
        return cast("dict[str, Held]", self.meta["onnx_names"])

    @property
    def onnx_inputs(self) -> tuple[str, ...]:
        """The graph's inputs, in the order of the arguments."""
        return cast("tuple[str, ...]", self.meta["onnx_inputs"])

    @property
    def onnx_outputs(self) -> tuple[str, ...]:
        """The graph's outputs, in the order of the results."""
        return cast("tuple[str, ...]", self.meta["onnx_outputs"])

    @property
    def onnx_jumps(self) -> dict[str, str]:
        """Nodes of the PyTorch graph whose value jumps where their operands hardly change -> the tensors they make."""
        return cast("dict[str, str]", self.meta.get("onnx_jumps", {}))

    def __reduce__(self) -> Any:
        """``torch.save`` and ``pickle`` keep what a plain GraphModule would lose: where the initialisers are."""
        build, state = super().__reduce__()
        return _restored, (build, state, {key: self.meta[key] for key in _KEPT if key in self.meta}, self.training)


_KEPT = ("onnx_names", "onnx_inputs", "onnx_outputs", "onnx_jumps")


def _restored(build: Callable[..., fx.GraphModule], state: Any, meta: dict[str, Any], training: bool) -> OnnxModule:
    """The module that was pickled."""
    plain = build(*state)
    module = OnnxModule(plain, plain.graph, class_name="OnnxModule")
    module.meta.update(meta)
    module.train(training)
    return module


def to_module(model: ModelLike, *, registry: Converters | None = None) -> OnnxModule:
    """An ONNX model as a PyTorch module that computes the same, and can be trained.

    The module takes the graph's inputs in order and returns its output, or a tuple of them. It comes in ``eval`` mode.
    Floating-point weights are parameters, statistics of BatchNormalization and all other constants are buffers
    (numbers without dimensions and masks of huge values included). ``onnx_names`` says where each weight is.

    Args:
        model: a Model, ModelProto or path; it is normalised first and not changed.
        registry: the known converters, if not the default ones.

    Raises:
        ConversionError: operators without a converter; the message names all of them.
        ModelError: the model cannot be read.
        ShapeError: the shapes contradict the model.
    """
    builder = built(model, registry)
    graph = builder.graph
    module = OnnxModule(builder.root, builder.fx, class_name="OnnxModule")
    module.meta.update(onnx_names=builder.names, onnx_inputs=graph.inputs, onnx_outputs=graph.outputs)
    module.meta["onnx_jumps"] = {
        made.name: node.outputs[0] for made, node in builder.origins.items() if made.target in JUMPING
    }
    module.eval()
    return module


def built(model: ModelLike, registry: Converters | None = None) -> Builder:
    """The finished PyTorch graph of a model, with its parameters. Raises as ``to_module``."""
    opened = open_bodies(normalize(model))
    graph = Graph(opened, infer_shapes(opened))
    program = Program(graph, _converters(graph, registry or default_registry()))
    builder = Builder(graph)
    program.convert(builder)
    results = [builder.value(name) for name in graph.outputs]
    builder.fx.output(results[0] if len(results) == 1 else tuple(results))
    return builder


def _converters(graph: Graph, registry: Converters) -> list[Converter | None]:
    """The converter of every node, None for an If; ConversionError that lists all nodes without one."""
    found: list[Converter | None] = []
    unknown: Counter[str] = Counter()
    refused: list[str] = []
    for node in graph.nodes:
        if node.domain == DOMAIN:
            found.append(None)
            if node.op_type in ("Loop", "Scan"):
                unknown[node.op_type] += 1
            continue
        converter = registry.find(node)
        if converter is None:
            unknown[f"{node.domain + '.' if node.domain else ''}{node.op_type} (opset {node.version})"] += 1
            continue
        reason = converter.refuse(node) if converter.refuse is not None else None
        if reason is not None:
            refused.append(f"{node}: {reason}")
        found.append(converter)
    if not unknown and not refused:
        return found
    kinds = [f"{kind} at {count} nodes" if count > 1 else kind for kind, count in sorted(unknown.items())]
    problems = ([f"no converter for {', '.join(kinds)}"] if kinds else []) + refused
    raise ConversionError(
        f"the model cannot become a PyTorch module: {'; '.join(problems)}. Pass a registry that knows them: "
        "onnxprune.torch.default_registry().extended(...)"
    )
