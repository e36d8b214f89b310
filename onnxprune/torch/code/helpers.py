"""The functions that a model's code calls, taken out of this package with all that they need, and with nothing else."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType

from onnxprune.errors import ConversionError

_OWN = "onnxprune."


def file_of(module: str) -> str:
    """The name of the file that holds what is taken from a module of this package."""
    inside = module.removeprefix(_OWN)
    for room in ("torch.ops.", "torch."):
        if inside.startswith(room):
            return inside.removeprefix(room).replace(".", "_")
    return inside.replace(".", "_")


@dataclass
class _Taken:
    """A module of this package, and which of its statements are wanted."""

    text: str
    tree: ast.Module
    bound: dict[str, ast.stmt]
    names: set[str] = field(default_factory=set)


def sources(wanted: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The files that define these functions, (module, name) each: name of the file -> text.

    Raises:
        ConversionError: one of them needs something of this package that cannot stand alone.
    """
    taken: dict[str, _Taken] = {}
    open_names = list(wanted)
    while open_names:
        module, name = open_names.pop()
        if module not in taken:
            taken[module] = _opened(sys.modules[module])
        home = taken[module]
        if name in home.names or name not in home.bound:
            continue
        home.names.add(name)
        statement = home.bound[name]
        if isinstance(statement, ast.ImportFrom):
            target = _target(statement, name)
            if target is not None:
                open_names.append(target)
            continue
        open_names += [(module, used) for used in _uses(statement)]
    found = {file_of(module): _written(module, home) for module, home in taken.items()}
    if len(found) < len(taken):
        raise ConversionError(f"two modules of helpers would have one name: {', '.join(sorted(taken))}")
    return found


def _opened(module: ModuleType) -> _Taken:
    text = inspect.getsource(module)
    tree = ast.parse(text)
    bound: dict[str, ast.stmt] = {}
    for statement in tree.body:
        bound.update((name, statement) for name in _binds(statement))
    return _Taken(text, tree, bound)


def _binds(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name.partition(".")[0] for alias in names]
    return []


def _uses(statement: ast.stmt) -> list[str]:
    return sorted({node.id for node in ast.walk(statement) if isinstance(node, ast.Name)})


def _target(statement: ast.ImportFrom, name: str) -> tuple[str, str] | None:
    """What an import from this package names, None for others; modules themselves are taken by what is read of them."""
    module = statement.module or ""
    if not module.startswith(_OWN):
        return None
    alias = next(alias for alias in statement.names if (alias.asname or alias.name) == name)
    return module, alias.name


def _written(module: str, home: _Taken) -> str:
    imports: list[str] = []
    rest: list[str] = []
    kept = [s for s in home.tree.body if home.names.intersection(_binds(s))]
    for statement in kept:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports += _imports(statement, home.names)
            continue
        lines = home.text.splitlines()
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
        block = isinstance(statement, ast.FunctionDef | ast.ClassDef)
        gap = "\n\n" if block or (rest and rest[-1].startswith(("def ", "class ", "@"))) else ""
        rest.append(gap + "\n".join(lines[first - 1 : statement.end_lineno]))
    about = ast.get_docstring(home.tree) or module
    summary = about.splitlines()[0]
    ordered = _ordered(imports)
    text = "\n".join([f'"""{summary}"""', "", "from __future__ import annotations", "", *ordered, "", *_spaced(rest)])
    return text.rstrip("\n") + "\n"


def _spaced(parts: list[str]) -> list[str]:
    """Statements with the blank lines that formatters want: two around functions and classes."""
    found: list[str] = []
    before_is_block = False
    for part in parts:
        plain = part.lstrip("\n")
        is_block = plain.startswith(("def ", "class ", "@"))
        if is_block or before_is_block:
            found += ["", ""] if found else [""]
        found.append(plain)
        before_is_block = is_block
    return found


def _imports(statement: ast.Import | ast.ImportFrom, names: set[str]) -> list[str]:
    kept = [a for a in statement.names if (a.asname or a.name.partition(".")[0]) in names]
    written = sorted(f"{a.name} as {a.asname}" if a.asname else a.name for a in kept)
    if isinstance(statement, ast.Import):
        return [f"import {name}" for name in written]
    module = statement.module or ""
    if module == "__future__":
        return []
    if module.startswith(_OWN):
        module = f".{file_of(module)}"
    return [f"from {module} import {', '.join(written)}"]


def _ordered(imports: list[str]) -> list[str]:
    """In three parts: the standard library, PyTorch and numpy, this folder."""
    parts: tuple[list[str], ...] = ([], [], [])
    for line in imports:
        module = line.split()[1]
        parts[2 if module.startswith(".") else int(module.partition(".")[0] in ("torch", "numpy"))].append(line)
    return "\n\n".join(
        "\n".join(sorted(part, key=lambda s: not s.startswith("import"))) for part in parts if part
    ).split("\n")
