"""The coupling graph as text for other programs."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from onnxprune._display import shown

if TYPE_CHECKING:
    import networkx as nx


def to_dot(network: nx.Graph) -> str:
    """For Graphviz: pinned axes are red, positions that do not map one to one are dashed."""
    lines = ["graph coupling {", "  node [shape=box, fontsize=10];", "  edge [fontsize=8];"]
    for axis, data in network.nodes(data=True):
        label = f"{axis}\n{data['extent']}"
        label += f"\ngroup {data['groups']}" if data["groups"] else ""
        colour = ", color=red" if data["pinned"] else ""
        tooltip = f", tooltip={_quoted(data['pinned'])}" if data["pinned"] else ""
        lines.append(f"  {_quoted(axis)} [label={_quoted(label)}{colour}{tooltip}];")
    for a, b, data in network.edges(data=True):
        style = ", style=dashed" if data["kind"] == "mapped" else ""
        lines.append(f"  {_quoted(a)} -- {_quoted(b)} [label={_quoted(data['nodes'])}{style}];")
    return "\n".join([*lines, "}", ""])


def to_graphml(network: nx.Graph) -> str:
    """As GraphML."""
    import networkx as nx

    # XML has no word for control characters, not even spelled out.
    plain = nx.relabel_nodes(network, {axis: shown(axis) for axis in network})
    for data in (*plain.nodes.values(), *plain.edges.values()):
        data.update({name: shown(value) for name, value in data.items() if isinstance(value, str)})
    buffer = io.BytesIO()
    nx.write_graphml_xml(plain, buffer, encoding="utf-8")
    return buffer.getvalue().decode()


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
