"""The blocks of a PyTorch graph: which nodes become modules of their own, as far as names and edges allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import networkx as nx
from torch import fx, nn

from onnxprune.torch.builder import Builder
from onnxprune.torch.code.scopes import Scope, common, legal, scope_of, scope_of_weight
from onnxprune.torch.paths import Paths

COMPUTES = ("call_function", "call_module")


@dataclass
class Block:
    """A module with a forward of its own.

    Attributes:
        path: where it is.
        units: what its forward does, in order: single nodes, and blocks inside.
        reads: the values that it is given.
        gives: those that others read.
        weights: the nodes that read its own parameters and buffers (not those of modules in it), and their names.
    """

    path: Scope
    units: list[fx.Node | Block] = field(default_factory=list)
    reads: list[fx.Node] = field(default_factory=list)
    gives: list[fx.Node] = field(default_factory=list)
    weights: dict[fx.Node, str] = field(default_factory=dict)

    def nodes(self) -> list[fx.Node]:
        """All that it computes."""
        return [node for unit in self.units for node in (unit.nodes() if isinstance(unit, Block) else [unit])]


Leaves: TypeAlias = dict[fx.Node, Scope]


def blocks_of(builder: Builder, made_by: Callable[[nn.Module], str]) -> tuple[Block, Leaves]:
    """The network as blocks, and where each module of ``torch.nn`` is.

    Args:
        builder: with the finished graph.
        made_by: how a module is made, as text; those without values that are made alike can be one.
    """
    nodes = [node for node in builder.fx.nodes if node.op in COMPUTES]
    scopes = _scopes(builder, nodes)
    leaves = _leaves(builder, nodes, scopes, made_by)
    taken = set(leaves.values())
    inside = {node: leaves[node][:-1] if node in leaves else _outside(scopes[node], taken) for node in nodes}
    root = Block(())
    _arrange(root, nodes, inside, leaves)
    output = next(node for node in builder.fx.nodes if node.op == "output")
    _place_weights(root, builder)
    _borders(root, output)
    return root, leaves


def _scopes(builder: Builder, nodes: Sequence[fx.Node]) -> dict[fx.Node, Scope]:
    """The scope of each node: as its name says, else that of what lies around it."""
    found: dict[fx.Node, Scope | None] = {}
    weights = _weights_of(builder)
    for node in nodes:
        origin = builder.origins.get(node)
        scope = None if origin is None else scope_of(origin)
        if scope is None and node.op == "call_module":
            scope = next(filter(None, map(scope_of_weight, weights.get(str(node.target), ()))), None)
            dotted = _dotted(builder, str(node.target), weights)
            scope = dotted[:-1] if dotted is not None else scope
        found[node] = scope
    settled: dict[fx.Node, Scope] = {}
    for node in nodes:
        scope = found[node]
        if scope is None:
            around = [settled[n] for n in node.all_input_nodes if n in settled]
            around += [s for s in (found.get(n) for n in node.users) if s is not None]
            scope = common(around) if around else ()
        settled[node] = scope
    return _without_shared(settled, builder, weights)


def _without_shared(
    scopes: dict[fx.Node, Scope], builder: Builder, weights: Mapping[str, Sequence[str]]
) -> dict[fx.Node, Scope]:
    """Without the scopes around everything, which say nothing, unless weights are called by them."""
    modules = [str(node.target) for node in scopes if node.op == "call_module"]
    if not scopes or any(_dotted(builder, target, weights) is not None for target in modules):
        return scopes
    count = len(common(list(scopes.values())))
    return {node: scope[count:] for node, scope in scopes.items()}


def _weights_of(builder: Builder) -> dict[str, list[str]]:
    """For each module, the initialisers that it holds."""
    found: dict[str, list[str]] = {}
    for name, held in builder.names.items():
        for owner in {key.rpartition(".")[0] for key in held.keys}:
            found.setdefault(owner, []).append(name)
    return found


def _dotted(builder: Builder, target: str, weights: Mapping[str, Sequence[str]]) -> Scope | None:
    """The path of a module whose weights are called as PyTorch calls them."""
    named = any("." in name and builder.names[name].keys == (name,) for name in weights.get(target, ()))
    return tuple(map(legal, target.split("."))) if named else None


def _leaves(
    builder: Builder, nodes: Sequence[fx.Node], scopes: Mapping[fx.Node, Scope], made_by: Callable[[nn.Module], str]
) -> Leaves:
    """A path for each module of ``torch.nn``: as its weights are called, else as its node is."""
    weights = _weights_of(builder)
    paths, leaves = Paths(), Leaves()
    modules = [node for node in nodes if node.op == "call_module"]
    for node in modules:
        dotted = _dotted(builder, str(node.target), weights)
        if dotted is not None:
            leaves[node] = _claimed(paths, dotted)
    members: dict[Scope, list[fx.Node]] = {}
    for node in nodes:
        members.setdefault(scopes[node], []).append(node)
    inside: Counter[Scope] = Counter(scope[:n] for scope in scopes.values() for n in range(len(scope) + 1))
    shared: dict[tuple[Scope, str], Scope] = {}
    for node in (node for node in modules if node not in leaves):
        module, scope = builder.root.get_submodule(str(node.target)), scopes[node]
        made = made_by(module)
        stateless = not any(module.state_dict())
        key = (scope, made)
        if stateless and key in shared:
            leaves[node] = shared[key]
            continue
        alone = all(n.op == "call_module" and n not in leaves for n in members[scope]) and (
            len(members[scope]) == 1 or (stateless and _all_made(builder, members[scope], made, made_by))
        )
        while scope[:-1] and alone and inside[scope[:-1]] == inside[scope]:
            scope = scope[:-1]  # Nothing else is in there.
        name = scope if scope and alone else (*scope, legal(type(module).__name__.lower()))
        leaves[node] = shared[key] = _claimed(paths, name)
    return leaves


def _claimed(paths: Paths, wanted: Scope) -> Scope:
    return tuple(map(legal, paths.claim(".".join(wanted)).split(".")))


def _all_made(builder: Builder, nodes: Iterable[fx.Node], made: str, made_by: Callable[[nn.Module], str]) -> bool:
    return all(made_by(builder.root.get_submodule(str(node.target))) == made for node in nodes)


def _outside(scope: Scope, leaves: set[Scope]) -> Scope:
    """A scope as long as it is not inside of what is a module of ``torch.nn``."""
    for count in range(1, len(scope) + 1):
        if scope[:count] in leaves:
            return scope[: count - 1]
    return scope


def _arrange(block: Block, nodes: Sequence[fx.Node], inside: Mapping[fx.Node, Scope], leaves: Leaves) -> None:
    """Fill a block with these nodes: blocks for the scopes in it that can be called at one time, else single nodes."""
    place = {node: number for number, node in enumerate(nodes)}
    links = [(a, b) for b in nodes for a in b.all_input_nodes if a in place]
    unit: dict[fx.Node, fx.Node | Scope] = {node: node for node in nodes}
    chosen: dict[Scope, list[fx.Node]] = {}
    waiting = _children(len(block.path), nodes, inside)
    while waiting:
        path, members = waiting.pop(0)
        only = leaves.get(members[0]) if len(members) == 1 else None
        if len(members) == 1 and (only is None or len(only) != len(path) + 1 or not only[-1].isdigit()):
            continue  # A list of one module is one that can be called; a single call is no block.
        trial: dict[fx.Node, fx.Node | Scope] = {**unit, **dict.fromkeys(members, path)}
        if nx.is_directed_acyclic_graph(_quotient(links, trial)):
            unit, chosen[path] = trial, members
        else:
            waiting += _children(len(path), members, inside)
    quotient = _quotient(links, unit)
    quotient.add_nodes_from(unit.values())
    first: dict[fx.Node | Scope, int] = {}
    for node in nodes:
        first.setdefault(unit[node], place[node])
    for item in nx.lexicographical_topological_sort(quotient, key=first.__getitem__):
        if isinstance(item, fx.Node):
            block.units.append(item)
            continue
        child = Block(item)
        _arrange(child, chosen[item], inside, leaves)
        block.units.append(child)


def _children(
    depth: int, nodes: Sequence[fx.Node], inside: Mapping[fx.Node, Scope]
) -> list[tuple[Scope, list[fx.Node]]]:
    found: dict[Scope, list[fx.Node]] = {}
    for node in nodes:
        if len(inside[node]) > depth:
            found.setdefault(inside[node][: depth + 1], []).append(node)
    return list(found.items())


def _quotient(links: Sequence[tuple[fx.Node, fx.Node]], unit: Mapping[fx.Node, fx.Node | Scope]) -> nx.DiGraph:
    return nx.DiGraph({(unit[a], unit[b]) for a, b in links if unit[a] != unit[b]})


def _place_weights(root: Block, builder: Builder) -> None:
    """Each parameter and buffer that functions read belongs to the innermost block around all that read it."""
    owner: dict[fx.Node, list[Block]] = {}

    def visit(block: Block, around: list[Block]) -> None:
        chain = [*around, block]
        for unit in block.units:
            if isinstance(unit, Block):
                visit(unit, chain)
            else:
                owner[unit] = chain

    visit(root, [])
    for node in builder.fx.nodes:
        if node.op != "get_attr":
            continue
        chains = [owner.get(user, [root]) for user in node.users] or [[root]]
        depth = 0
        while all(len(chain) > depth + 1 and chain[depth + 1] is chains[0][depth + 1] for chain in chains):
            depth += 1
        block = chains[0][depth]
        parts = tuple(map(legal, str(node.target).split(".")))
        rest = (
            parts[len(block.path) :]
            if parts[: len(block.path)] == block.path and len(parts) > len(block.path)
            else parts
        )
        block.weights[node] = legal("_".join(rest))


def _borders(block: Block, output: fx.Node) -> None:
    """What each block reads and gives."""
    own = set(block.nodes())
    available = own | set(_weights_in(block))
    reads: dict[fx.Node, None] = {}
    for node in block.nodes():
        reads.update(dict.fromkeys(n for n in node.all_input_nodes if n not in available))
    block.reads = list(reads)
    block.gives = [node for node in block.nodes() if any(user not in own for user in node.users)]
    if not block.path:
        block.gives = list(output.all_input_nodes)
    for unit in block.units:
        if isinstance(unit, Block):
            _borders(unit, output)


def _weights_in(block: Block) -> list[fx.Node]:
    inner = [unit for unit in block.units if isinstance(unit, Block)]
    return [*block.weights, *(node for child in inner for node in _weights_in(child))]
