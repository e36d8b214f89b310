"""The study's page."""

from __future__ import annotations

from collections.abc import Sequence

from .engines import COMPILERS, Compiler
from .preparing import REDUCE
from .rows import DIFFERS, REFUSED, TAKEN, TOLERANCE, Row

_HEAD = """\
# Compilers and runtimes

Whether what took a model before takes it after pruning: {models} models, as published and with {reduce:.0%} of their
MACs removed by the default options (`onnxprune prune MODEL -o OUT --reduce {reduce}`), given to {engines} engines. This
page is written by `python -m tests.compilers.study`; the figures and the engines' own words are in
[{figures}]({figures}).

- ✓ both are taken, and both compute what onnxruntime does, to {tolerance:.0e} of an output's spread;
- – both are refused; ≠ both are taken, and on both the engine computes something else than onnxruntime;
- \\+ the pruned one fares better than the original: what hinders, an If or shape arithmetic whose outcome is known
  beforehand, is folded away;
- ✗ the original is taken and the pruned one is not, or computes otherwise;
- · not asked (too large), or no answer in time.
"""
_SIGNS = {TAKEN: "✓", REFUSED: "–", DIFFERS: "≠"}


def page(rows: Sequence[Row], figures: str = "compilers.csv") -> str:
    """The whole page."""
    asked = [compiler for compiler in COMPILERS if any(row.engine == compiler.name for row in rows)]
    models = _models(rows)
    head = _HEAD.format(models=len(models), reduce=REDUCE, engines=len(asked), figures=figures, tolerance=TOLERANCE)
    parts = [head, _totals(rows, asked), _nodes(rows)]
    absent = [compiler.title for compiler in COMPILERS if compiler not in asked]
    if absent:
        parts.append(f"Not asked: {', '.join(absent)}.\n")
    parts += [_failures(rows), _table(rows, asked), _reasons(rows, asked)]
    return "\n".join(part for part in parts if part)


def _models(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return sorted({(row.origin, row.model) for row in rows})


def _totals(rows: Sequence[Row], asked: Sequence[Compiler]) -> str:
    lines = [
        "| engine | version | models | ✓ | – | ≠ | + | ✗ | largest difference where ✓ |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for compiler in asked:
        here = [row for row in rows if row.engine == compiler.name and row.known]
        signs = [_sign(row) for row in here]
        counts = " | ".join(str(signs.count(sign)) for sign in ("✓", "–", "≠", "+", "✗"))
        taken = [row.pruned_difference for row in here if _sign(row) == "✓"]
        version = next((row.version for row in reversed(here)), "")
        largest = f"{max(taken):.0e}" if taken else ""
        lines.append(f"| {compiler.title} | {version} | {len(here)} | {counts} | {largest} |")
    return "\n".join(lines) + "\n"


def _nodes(rows: Sequence[Row]) -> str:
    new = list({(row.origin, row.model): row.new_nodes for row in rows}.values())
    if not new:
        return ""
    none = new.count(0)
    return f"Pruning adds no node to {none} of {len(new)} models ({none / len(new):.0%}), and at most {max(new)}.\n"


def _failures(rows: Sequence[Row]) -> str:
    worse = [row for row in rows if row.worse]
    lines = [
        f"- {row.engine}, {row.model}: {_cell(row.pruned or f'difference {row.pruned_difference:.1e}')}"
        for row in worse
    ]
    return "## Worse after pruning\n\n" + "\n".join(lines) + "\n" if lines else ""


def _table(rows: Sequence[Row], asked: Sequence[Compiler]) -> str:
    by_key = {(row.origin, row.model, row.engine): row for row in rows}
    nodes = {(row.origin, row.model): row for row in rows}
    titles = " | ".join(compiler.title for compiler in asked)
    lines = [
        f"## Models\n\n| model | nodes | pruned | new | {titles} |",
        "|---|--:|--:|--:|" + ":-:|" * len(asked),
    ]
    for key in _models(rows):
        signs = (by_key.get((*key, compiler.name)) for compiler in asked)
        cells = " | ".join("·" if row is None else _sign(row) for row in signs)
        row = nodes[key]
        name = row.model if row.origin != "models" else f"models/{row.model}"
        lines.append(f"| {name} | {row.nodes} | {row.pruned_nodes} | {row.new_nodes} | {cells} |")
    return "\n".join(lines) + "\n"


def _sign(row: Row) -> str:
    if not row.known:
        return "·"
    return _SIGNS[row.states[0]] if row.equal else "✗" if row.worse else "+"


def _reasons(rows: Sequence[Row], asked: Sequence[Compiler]) -> str:
    """What engines say of originals that they refuse."""
    lines: list[str] = []
    for compiler in asked:
        said: dict[str, list[str]] = {}
        for row in rows:
            if row.engine == compiler.name and row.known and row.original:
                said.setdefault(row.original, []).append(row.model)
        lines += [f"- {compiler.title}: `{_cell(what)[:160]}` ({', '.join(models)})" for what, models in said.items()]
    return "## What is refused as published\n\n" + "\n".join(lines) + "\n" if lines else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("`", "'")
