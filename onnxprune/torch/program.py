"""The nodes of a graph with their converters, by the body that they lie in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from onnxprune.errors import ConversionError
from onnxprune.ir.control_flow import body_scope, border_operands, scope_of
from onnxprune.ir.graph import Graph, Node, UnknownShapeError
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import Held
from onnxprune.torch.ops.control import Conditional

THEN, ELSE = "then_branch", "else_branch"


@dataclass(frozen=True)
class Body:
    """A body as a module, what it is called with, and where it holds which initialisers."""

    module: fx.GraphModule
    arguments: tuple[fx.Node, ...]
    names: Mapping[str, Held]


class Program:
    """What has to be converted, of an opened model (see ``onnxprune.ir.control_flow``).

    Args:
        graph: the nodes.
        converters: theirs, in the same order; None for a node that stands for an If.
    """

    def __init__(self, graph: Graph, converters: Sequence[Converter | None]) -> None:
        self._graph = graph
        self._steps: dict[str, list[tuple[Node, Converter | None]]] = {}
        for node, converter in zip(graph.nodes, converters, strict=True):
            self._steps.setdefault(scope_of(node.proto), []).append((node, converter))

    def convert(self, build: Builder, scope: str = "") -> None:
        """Convert the nodes of the main graph, or of one body."""
        for node, converter in self._steps.get(scope, ()):
            if converter is None:
                self._conditional(node, build)
            else:
                _convert(node, converter, build)

    def _conditional(self, border: Node, build: Builder) -> None:
        """Both bodies become modules inside of one that runs one of them: the other need not fit the inputs."""
        bodies = {attribute: self._body(border, attribute, build) for attribute in (THEN, ELSE)}
        module = Conditional(bodies[THEN].module, bodies[ELSE].module)
        path = build.claim(re.sub(r"[./]", "_", border.name.strip("/")), module)
        for attribute, body in bodies.items():
            for name, held in body.names.items():
                build.names[name] = Held(tuple(f"{path}.{attribute}.{key}" for key in held.keys), held.layout)
        arguments = tuple(bodies[attribute].arguments for attribute in (THEN, ELSE))
        results = build.fx.call_module(path, (build.host(border, 0), *arguments))
        build.set_outputs(border, [build.item(results, place) for place in range(len(border.outputs))])

    def _body(self, border: Node, attribute: str, build: Builder) -> Body:
        scope = body_scope(border.proto, attribute)
        nodes = list(self._inside(scope))
        results = border_operands(border.proto)[1][attribute]
        made = {name for node in nodes for name in node.outputs}
        read = dict.fromkeys([*(name for node in nodes for name in node.inputs if name), *results])
        inner = build.inner(
            [name for name in read if name not in made and name not in self._graph.model.weights],
            self._owned(read, {node.index for node in nodes}),
        )
        self.convert(inner, scope)
        inner.fx.output(tuple(inner.value(name) for name in results))
        arguments = tuple(build.argument(name) for name in inner.received)
        return Body(fx.GraphModule(inner.root, inner.fx, class_name="Body"), arguments, inner.names)

    def _owned(self, read: Iterable[str], inside: set[int]) -> set[str]:
        """The weights among these that no other node reads, and no graph output is."""
        elsewhere = self._graph.outputs
        found = {name for name in read if name in self._graph.model.weights and name not in elsewhere}
        return {name for name in found if inside.issuperset(self._graph.consumers.get(name, ()))}

    def _inside(self, scope: str) -> Iterator[Node]:
        for found, steps in self._steps.items():
            if found.startswith(scope):
                yield from (node for node, _ in steps)


def _convert(node: Node, converter: Converter, build: Builder) -> None:
    if converter.host is not None and build.is_shape_arithmetic(node):
        value = converter.host(node, build)
        if value is not None:
            build.set_outputs(node, value, host=True)
            return
    try:
        build.set_outputs(node, converter.convert(node, build))
    except UnknownShapeError as error:
        raise ConversionError(
            f"{node} needs the shape of '{error}', which shape inference does not find; give the inputs fixed shapes"
        ) from error
