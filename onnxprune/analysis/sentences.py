"""An analysis in sentences: what its figures hold for, what carries state, and what was not understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune._display import some

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.ir.model import Model


def assumptions(analysis: Analysis) -> str:
    """The input shapes that all figures hold for, and which of them were guessed."""
    shapes = ", ".join(
        f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in analysis.shapes.binding.items()
    )
    text = f"Input shapes: {shapes or 'none'}."
    return " ".join((text, *analysis.shapes.bound.in_words()))


def carried(analysis: Analysis, after: Model | None = None) -> list[str]:
    """What carries state from run to run, with its shape before and after; or what looks as if it did."""
    if not analysis.state:
        pairs = some(map(str, analysis.proposed_state))
        return [f"State pairs: {pairs} may shrink together with --state auto."] if pairs else []
    lines = []
    for pair in analysis.state:
        shapes = [analysis.shapes.extents[name] for name in pair]
        sizes = ["×".join(map(str, shape)) for shape in shapes]
        for place, name in enumerate(pair if after is not None else ()):
            declared = next(v for v in (*after.graph.input, *after.graph.output) if v.name == name) if after else None
            dims = declared.type.tensor_type.shape.dim if declared is not None else ()
            sizes[place] += " → " + "×".join(str(d.dim_value or n) for d, n in zip(dims, shapes[place], strict=True))
        lines.append(f"State: {pair.input} {sizes[0]}, {pair.output} {sizes[1]}.")
    return lines


def not_understood(analysis: Analysis) -> list[str]:
    """A line per reason for which nodes are pinned because they are not understood, naming some."""
    by_reason: dict[str, list[str]] = {}
    for node, reason in analysis.unknown.items():
        by_reason.setdefault(reason, []).append(node)
    return [f"Not understood, and therefore pinned: {reason}: {some(nodes)}" for reason, nodes in by_reason.items()]
