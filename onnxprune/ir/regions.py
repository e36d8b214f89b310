"""Parts of a graph with one entry and one exit: found by dominators, nested, whatever they compute.

A region lies between two tensors: all that its exit needs comes through its entry (the entry dominates), and nothing
that is made inside is read outside but the exit (the exit post-dominates). The branch of a residual block is one, a
block is one, and so are two layers in a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph

_START, _END = 0, 1
_Point = int | str | tuple[int]
"""A place in the graph of dominators: a tensor by name, a node by its number, or one of the two ends."""


@dataclass(frozen=True)
class Region:
    """What lies between two tensors: the numbers of its nodes, ascending, and those of its layers."""

    entry: str
    exit: str
    nodes: tuple[int, ...]
    layers: tuple[int, ...]


class Regions:
    """The dominators of a graph, in both directions. ``model.derived(Graph)`` is what it takes; it is not changed."""

    def __init__(self, graph: Graph) -> None:
        import networkx as nx  # takes a while, and not every plan has regions

        self._graph = graph
        flow: nx.DiGraph[_Point] = nx.DiGraph()
        flow.add_edges_from((_START, name) for name in graph.inputs)
        for node in graph.nodes:
            reads = [name for name in node.reads if name and name not in graph.constants]
            if node.outputs and all(name in graph.constants for name in node.outputs if name):
                continue
            # What reads nothing (random numbers) starts anew each run: it belongs to no region.
            flow.add_edges_from(((name, (node.index,)) for name in reads) if reads else [(_START, (node.index,))])
            flow.add_edges_from(((node.index,), name) for name in node.outputs if name)
        flow.add_edges_from((name, _END) for name in graph.referred if name in flow)
        flow.add_edge(_START, _END)
        self._before = nx.immediate_dominators(flow, _START)
        self._behind = nx.immediate_dominators(flow.reverse(copy=False), _END)

    def between(self, entry: str, exit: str) -> tuple[int, ...]:
        """The nodes of the region between two tensors.

        Raises:
            PlanError: there is no such region: the exit needs more than the entry, or more than the exit is read.
        """
        found = self._inside(entry, exit)
        if found is None:
            raise PlanError(
                f"between '{entry}' and '{exit}' lies no region of the graph: all that '{exit}' needs must come "
                f"through '{entry}', and nothing in between may be read elsewhere"
            )
        return found

    def _inside(self, entry: str, exit: str) -> tuple[int, ...] | None:
        graph = self._graph
        if entry == exit or exit not in graph.producer or exit in graph.constants:
            return None
        found: set[int] = set()
        open_ = [exit]
        while open_:
            index = graph.producer.get(open_.pop())
            if index is None:
                return None
            if index in found:
                continue
            found.add(index)
            node = graph.nodes[index]
            if not self._leads_to(index, exit):
                return None
            reads = [name for name in node.reads if name and name not in graph.constants]
            if not reads:
                return None
            open_ += [name for name in reads if name != entry]
        return tuple(sorted(found))

    def _leads_to(self, index: int, exit: str) -> bool:
        """Whether everything that a node makes goes through a tensor."""
        graph, point = self._graph, self._behind.get((index,))
        steps = 0
        while point is not None and point != exit:
            following = self._behind.get(point)
            if following == point or steps > len(graph.nodes) * 2:
                return False
            point, steps = following, steps + 1
        return point is not None

    def find(self, layers: Collection[int], most: int) -> Iterator[Region]:
        """The regions with at least one and at most so many of these layers, in the order of their exits.

        Of regions with the same layers the smallest is given, and besides it the smallest whose exit is one operand of
        a node that computes from two computed tensors: there a whole branch ends.
        """
        graph = self._graph
        known: dict[tuple[tuple[int, ...], bool], Region] = {}
        chosen = set(layers)
        for node in graph.nodes:
            for exit in node.outputs:
                if not exit or exit in graph.constants:
                    continue
                for entry in self._entries(exit):
                    nodes = self._inside(entry, exit)
                    if nodes is None:
                        break  # What escapes from a region escapes from those around it, up to the same exit.
                    inner = tuple(index for index in nodes if index in chosen)
                    if len(inner) > most:
                        break
                    key = inner, self.ends_branch(exit)
                    if inner and (key not in known or len(nodes) < len(known[key].nodes)):
                        known[key] = Region(entry, exit, nodes, inner)
        smallest = {
            inner: min((r for (other, _), r in known.items() if other == inner), key=lambda r: len(r.nodes))
            for inner, _ in known
        }
        found = {(r.entry, r.exit): r for r in smallest.values()}
        found |= {(r.entry, r.exit): r for (_, ends), r in known.items() if ends}
        yield from sorted(found.values(), key=lambda r: (r.nodes[-1], r.nodes))

    def around(self, index: int, allowed: Collection[int], most: int) -> tuple[str, str, tuple[int, ...]] | None:
        """The entry, exit and nodes of the smallest region of allowed nodes that a node's result is used up in.

        Where the result meets again what it was made of, behind nodes that it alone goes through, the region ends
        there (x · sigmoid(x)); else it is the node alone. None where that is no region, or has more than so many nodes.
        """
        graph, found = self._graph, None
        exit, node = graph.nodes[index].outputs[0], graph.nodes[index]
        for _ in range(most):
            entry, nodes = self._nearest(index, exit, most)
            if nodes is None or len(nodes) > most or not set(nodes) <= set(allowed):
                break
            computed = {name for name in node.inputs if name and name not in graph.constants}
            if found is None or len(computed) > 1:
                found = entry, exit, nodes
            readers = graph.consumers.get(exit, [])
            if len(readers) != 1 or exit in graph.referred or readers[0] not in allowed:
                break
            node = graph.nodes[readers[0]]
            exit = node.outputs[0]
        return found

    def _nearest(self, index: int, exit: str, most: int) -> tuple[str, tuple[int, ...] | None]:
        for entry in islice(self._entries(exit), most):
            nodes = self._inside(entry, exit)
            if nodes is not None and index in nodes:
                return entry, nodes
        return "", None

    def ends_branch(self, exit: str) -> bool:
        """Whether a tensor is read once, by a node with another operand that is computed."""
        graph = self._graph
        readers = graph.consumers.get(exit, [])
        if len(readers) != 1 or exit in graph.referred:
            return False
        return any(name and name != exit and name not in graph.constants for name in graph.nodes[readers[0]].inputs)

    def _entries(self, exit: str) -> Iterator[str]:
        """The tensors that everything which a tensor needs goes through, the nearest first."""
        point = self._before.get(exit)
        while point is not None and point != _START:
            if isinstance(point, str):
                yield point
            point = self._before.get(point)
