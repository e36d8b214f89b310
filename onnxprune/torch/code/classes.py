"""Blocks as classes: what ``__init__`` makes and ``forward`` computes."""

from __future__ import annotations

import builtins
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import fx, nn

from onnxprune import torch as home
from onnxprune.errors import ConversionError
from onnxprune.torch import ops
from onnxprune.torch.builder import Builder
from onnxprune.torch.code.blocks import Block, Leaves
from onnxprune.torch.code.layout import Expression, bracket, group, keyed, lines, said, text
from onnxprune.torch.code.scopes import Scope, legal
from onnxprune.torch.code.spelling import Speller

Members: TypeAlias = "dict[str, Expression | Members]"
"""The modules of a block by name; those that nothing calls only hold others."""

_KNOWN = frozenset({"torch", "nn", "F", "math", "self", "Tensor", "Any", "Path", "OrderedDict", *dir(builtins)})
_FILES = frozenset(module.name for room in (home, ops) for module in pkgutil.iter_modules(room.__path__))
"""What the files of functions may be called."""
_LONGEST_LIST = 6


@dataclass
class Writer:
    """The classes of a model, each text once.

    Attributes:
        builder: with the finished graph.
        leaves: where the modules of ``torch.nn`` are.
        speller: writes expressions.
        helper_files: names that stand for files of functions.
        classes: texts by name, in the order in which they are defined.
        keys: where each parameter and buffer of the graph is in the written module.
    """

    builder: Builder
    leaves: Leaves
    speller: Speller
    classes: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    uses_ordered: bool = False
    _lists: set[Scope] = field(default_factory=set)
    _known: dict[str, str] = field(default_factory=dict)
    _paths: dict[str, list[str]] = field(default_factory=dict)

    def model(self, root: Block) -> None:
        """Write the class of the whole model, called Model, behind those that it needs."""
        self._define(root, "Model")
        ties = self._ties()
        if ties:
            head, sign, rest = self.classes["Model"].partition("\n\n")
            self.classes["Model"] = "\n".join([head, *ties]) + sign + rest

    def _ties(self) -> list[str]:
        """The statements that make parameters one that several modules hold."""
        first: dict[int, str] = {}
        found: list[str] = []
        for key, parameter in self.builder.root.named_parameters(remove_duplicate=False):
            if key not in self.keys:
                continue
            written = self.keys[key]
            if first.setdefault(id(parameter), written) != written:
                owner, _, name = written.rpartition(".")
                holder = f"self.get_submodule({text(owner)})" if owner else "self"
                found.append(f"        {holder}.{name} = self.get_parameter({text(first[id(parameter)])})")
        return found

    def text(self) -> list[str]:
        """All classes with what they stand for."""
        found = []
        for name, body in self.classes.items():
            places = self._paths[name]
            about = ", ".join(places[:_LONGEST_LIST]) + (", ..." if len(places) > _LONGEST_LIST else "")
            summary = "" if name == "Model" else f'    """{said(about)}."""\n\n'
            found.append(f"class {name}(nn.Module):\n{summary}{body}")
        return found

    # Classes

    def _define(self, block: Block, name: str) -> str:
        """The name of the class that is this block."""
        members = self._members(block)
        initial = self._initial(block, members)
        forward = self._forward(block)
        body = "\n".join([*initial, "", *forward]) + "\n"
        if body not in self._known:
            unique, number = name, 1
            while unique in self.classes:
                number += 1
                unique = f"{name}_{number}"
            self.classes[unique] = body
            self._known[body] = unique
        found = self._known[body]
        self._paths.setdefault(found, []).append(".".join(block.path))
        return found

    def _made(self, block: Block) -> Expression:
        """How a block is made: a sequence where it is one, else its class."""
        chain = self._chain(block)
        if chain is None:
            parts = [part[:1].upper() + part[1:] for part in block.path]
            name = "".join(f"_{part}" if part.isdigit() else part for part in parts).strip("_")
            return f"{self._define(block, name if name.isidentifier() and name != 'Model' else f'Block{name}')}()"
        if list(chain) == [str(number) for number in range(len(chain))]:
            return bracket("nn.Sequential(", list(chain.values()))
        self.uses_ordered = True
        pairs = [group([text(key), made]) for key, made in chain.items()]
        return bracket("nn.Sequential(", [bracket("OrderedDict(", [bracket("[", pairs, "]")])])

    def _chain(self, block: Block) -> dict[str, Expression] | None:
        """The numbered modules of a block that only hands values from one to the next."""
        if block.weights or len(block.reads) != 1 or len(block.gives) != 1:
            return None
        value, found = block.reads[0], dict[str, fx.Node | Block]()
        for unit in block.units:
            path = unit.path if isinstance(unit, Block) else self.leaves.get(unit, ())
            if len(path) != len(block.path) + 1 or not path[-1].isdigit() or path[-1] in found:
                return None
            reads = unit.reads if isinstance(unit, Block) else list(unit.args)
            gives = unit.gives if isinstance(unit, Block) else [unit]
            if reads != [value] or len(gives) != 1:
                return None
            found[path[-1]], value = unit, gives[0]
        if value is not block.gives[0] or list(found) != sorted(found, key=int):
            return None
        for unit in block.units:
            self._remember(unit)
        return {name: self._member(unit) for name, unit in found.items()}

    def _member(self, unit: fx.Node | Block) -> Expression:
        if isinstance(unit, Block):
            return self._made(unit)
        try:
            return self.speller.constructor(self.builder.root.get_submodule(str(unit.target)))
        except ConversionError as error:
            raise self._refused(unit, error) from error

    def _remember(self, unit: fx.Node | Block) -> None:
        if isinstance(unit, Block):
            return
        path = ".".join(self.leaves[unit])
        for key in self.builder.root.get_submodule(str(unit.target)).state_dict():
            self.keys[f"{unit.target}.{key}"] = f"{path}.{key}"

    # __init__

    def _members(self, block: Block) -> Members:
        members: Members = {}
        for unit in block.units:
            path = unit.path if isinstance(unit, Block) else self.leaves.get(unit)
            if path is None:
                continue
            inside = members
            *outer, last = path[len(block.path) :]
            for part in outer:
                held = inside.setdefault(part, {})
                assert isinstance(held, dict), f"{path} is inside of a module"
                inside = held
            if last not in inside:
                inside[last] = self._member(unit)
            self._remember(unit)
        self._find_lists(block.path, members)
        return members

    def _find_lists(self, path: Scope, members: Members) -> None:
        for name, member in members.items():
            if isinstance(member, dict):
                if _is_list(member):
                    self._lists.add((*path, name))
                self._find_lists((*path, name), member)

    def _initial(self, block: Block, members: Members) -> list[str]:
        found = ["    def __init__(self) -> None:", "        super().__init__()"]
        for name, member in members.items():
            made = _held(member)
            if name.isdigit():
                found += lines("", bracket("self.add_module(", [text(name), made]), depth=2)
            else:
                found += lines(f"self.{name} = ", made, depth=2)
        taken = set(members)
        for node in block.weights:
            name = _free(block.weights[node], taken)
            block.weights[node] = name
            found += self._weight(block, node, name)
        return found

    def _weight(self, block: Block, node: fx.Node, name: str) -> list[str]:
        value = _value(self.builder.root, str(node.target))
        self.keys[str(node.target)] = ".".join([*block.path, name])
        settings: list[Expression] = [group([str(n) for n in value.shape])]
        if value.dtype != torch.float32:
            settings.append(f"dtype={value.dtype}")
        empty = bracket("torch.empty(", settings)
        if isinstance(value, nn.Parameter):
            return lines(f"self.{name} = ", bracket("nn.Parameter(", [empty]), depth=2)
        return lines("", bracket("self.register_buffer(", [text(name), empty]), depth=2)

    # forward

    def _forward(self, block: Block) -> list[str]:
        names: dict[fx.Node, str] = {node: f"self.{name}" for node, name in block.weights.items()}
        taken = set(_KNOWN) | _FILES
        arguments = ["self"]
        order = [n for n in self.builder.fx.nodes if n.op == "placeholder"] if not block.path else block.reads
        for node in order:
            hint = str(node.target) if node.op == "placeholder" else ("x" if len(order) == 1 else self._hint(node))
            names[node] = _free(legal(hint), taken)
            kind = "Any" if self.builder.is_host(node) else "Tensor"
            arguments.append(f"{names[node]}: {kind}")
        body: list[str] = []
        for unit in block.units:
            if isinstance(unit, Block):
                body += self._called(block, unit, names, taken)
                continue
            made = self._call(block, unit, names)
            names[unit] = _free(self._hint(unit), taken)
            body += lines(f"{names[unit]} = ", made, depth=2)
        results = self._results(block)
        kind = "Tensor" if len(results) == 1 else "tuple[Any, ...]"
        head = lines("def forward", bracket("(", arguments), f" -> {kind}:", depth=1)
        if len(results) == 1 and body and body[-1].startswith(f"        {names[results[0]]} = "):
            return [*head, *body[:-1], "        return " + body[-1].partition(" = ")[2]]
        values = group([names[node] for node in results], bare=True)
        return [*head, *body, *(lines("return ", names[results[0]] if len(results) == 1 else values, depth=2))]

    def _results(self, block: Block) -> list[fx.Node]:
        if block.path:
            return block.gives
        output = next(node for node in self.builder.fx.nodes if node.op == "output")
        given = output.args[0]
        return list(given) if isinstance(given, tuple | list) else [given]

    def _called(self, block: Block, unit: Block, names: dict[fx.Node, str], taken: set[str]) -> list[str]:
        call = bracket(f"{self._access(block, unit.path)}(", [names[node] for node in unit.reads])
        if len(unit.gives) == 1:
            names[unit.gives[0]] = _free(self._named(unit.path, unit.gives[0]), taken)
            return lines(f"{names[unit.gives[0]]} = ", call, depth=2)
        base = _free(self._named(unit.path, unit.gives[0]), taken)
        found = lines(f"{base} = ", call, depth=2)
        for number, node in enumerate(unit.gives):
            names[node] = f"{base}[{number}]"
        return found

    def _call(self, block: Block, node: fx.Node, names: Mapping[fx.Node, str]) -> Expression:
        try:
            if node.op == "call_function":
                return self.speller.call(node, names.__getitem__)
            arguments = [self.speller.value(given, names.__getitem__) for given in node.args]
            return bracket(f"{self._access(block, self.leaves[node])}(", arguments)
        except ConversionError as error:
            raise self._refused(node, error) from error

    def _access(self, block: Block, path: Scope) -> str:
        """The expression that is a module inside of a block."""
        count = len(block.path)
        first, *rest = path[count:]
        found = f"self.get_submodule({text(first)})" if first.isdigit() else f"self.{first}"
        for number, part in enumerate(rest, count + 1):
            found += f"[{part if path[:number] in self._lists else text(part)}]"
        return found

    def _refused(self, node: fx.Node, error: ConversionError) -> ConversionError:
        origin = self.builder.origins.get(node)
        return ConversionError(f"{origin or node} cannot be written as PyTorch code: {error}")

    def _hint(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return self._named(self.leaves[node], node)
        name = getattr(node.target, "__name__", "value")
        return legal("part" if name == "getitem" else name)

    def _named(self, path: Scope, node: fx.Node) -> str:
        word = next((part for part in reversed(path) if not part.isdigit()), node.name)
        return legal(word.lower())


def _held(member: Expression | Members) -> Expression:
    """How a member is made; those that only hold others are lists, or dictionaries."""
    if not isinstance(member, dict):
        return member
    if _is_list(member):
        items = [_held(member[str(number)]) for number in range(len(member))]
        return bracket("nn.ModuleList(", [bracket("[", items, "]")])
    pairs = [keyed(text(name), _held(inner), ": ") for name, inner in member.items()]
    return bracket("nn.ModuleDict(", [bracket("{", pairs, "}")])


def _is_list(members: Iterable[str]) -> bool:
    names = set(members)
    return names == {str(number) for number in range(len(names))}


def _value(root: nn.Module, target: str) -> torch.Tensor:
    owner, _, name = target.rpartition(".")
    value = getattr(root.get_submodule(owner), name)
    assert isinstance(value, torch.Tensor)
    return value


def _free(name: str, taken: set[str]) -> str:
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


def outputs_of(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What a module returns, always as a list."""
    results = module(*inputs)
    return [results] if isinstance(results, torch.Tensor) else list(results)
