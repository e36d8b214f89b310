"""The charts of the page, as Vega-Lite specifications whose data, sizes and colours the page's script fills in.

The data are named and empty here; every chart says in its docstring which fields its rows have. Colours come from
the page's theme: the scales name no colours but take the configured range of categories.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart
_SHORT = "datum.value === 0 ? '0' : format(datum.value, '~s') + unit"
"""Labels like 250k; the format alone makes 0k of zero. ``unit`` is a parameter that the script sets."""


def specifications() -> dict[str, dict[str, Any]]:
    """Every chart by the name of the element that it is drawn in."""
    charts: dict[str, Chart] = {
        "changes": _changes(),
        "changes-many": _changes_many(),
        "shares": _shares(),
        "shares-many": _shares_many(),
        "memory": _memory(),
        "coupling": _coupling(),
        "tradeoff": _tradeoff(),
    }
    return {name: _plain(chart) for name, chart in charts.items()}


def _plain(chart: Chart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)  # the page's theme
    return spec


def _unit() -> alt.Parameter:
    """What stands behind the numbers of an axis: B, say."""
    return alt.param(name="unit", value="")


def _labels() -> alt.Parameter:
    """The names of the layers by position, shortened; the script sets them."""
    return alt.param(name="labels", value=[])


_SHAPES = ["circle", "square", "triangle-up", "cross", "triangle-down", "triangle-left"]
"""Of modes: whoever does not see colours tells them by these."""

_LAYER_TIPS = [
    alt.Tooltip("name:N", title="layer"),
    alt.Tooltip("op:N", title="operator"),
    alt.Tooltip("channels:N", title="channels"),
    alt.Tooltip("shownBefore:N", title="original"),
    alt.Tooltip("shownAfter:N", title="pruned"),
    alt.Tooltip("removed:N", title="removed"),
]


def _changes() -> alt.LayerChart:
    """A row per layer, its bar before and after; rows: i, name, op, channels, before, after, shown…, removed."""
    y = alt.Y("i:O", title=None, axis=alt.Axis(labelExpr="labels[datum.value]", ticks=False, domain=False))
    base = alt.Chart(alt.NamedData(name="rows")).encode(y=y, tooltip=_LAYER_TIPS)
    axis = alt.Axis(labelExpr=_SHORT, orient="top", tickCount=5)
    before = (
        base.transform_calculate(which="'original'")
        .mark_bar(cursor="pointer")
        .encode(x=alt.X("before:Q", title=None, axis=axis), color=_which())
    )
    after = (
        base.transform_calculate(which="'pruned'")
        .mark_bar(cursor="pointer", height={"band": 0.5})
        .encode(x=alt.X("after:Q", title=None, axis=axis), color=_which())
    )
    chart: alt.LayerChart = alt.layer(before, after).add_params(_labels(), _unit()).properties(width="container")
    return chart


def _changes_many() -> alt.LayerChart:
    """The same for hundreds of layers: a narrow column each, in the order of execution."""
    x = alt.X("i:Q", title="layers in order of execution", axis=alt.Axis(grid=False), scale=alt.Scale(nice=False))
    base = alt.Chart(alt.NamedData(name="rows")).encode(x=x, x2="next:Q", tooltip=_LAYER_TIPS)
    axis = alt.Axis(labelExpr=_SHORT, tickCount=5)
    before = (
        base.transform_calculate(which="'original'")
        .mark_rect(cursor="pointer")
        .encode(y=alt.Y("before:Q", title=None, axis=axis), y2=alt.datum(0), color=_which())
    )
    after = (
        base.transform_calculate(which="'pruned'")
        .mark_rect(cursor="pointer")
        .encode(y=alt.Y("after:Q", title=None, axis=axis), y2=alt.datum(0), color=_which())
    )
    chart: alt.LayerChart = alt.layer(before, after).add_params(_unit()).properties(width="container", height=260)
    return chart


_SHARE_TIPS = [
    alt.Tooltip("name:N", title="layer"),
    alt.Tooltip("metric:N", title="of all"),
    alt.Tooltip("share:Q", title="share", format=".2%"),
]
_SHARED = ("parameters", "MACs", "memory")


def _colour(metric: str) -> alt.Color:
    return alt.Color("metric:N", scale=alt.Scale(domain=list(_SHARED)), legend=None, title=metric)


def _shares() -> alt.HConcatChart:
    """A panel per complexity, side by side, with a bar per layer; rows: i, name, metric, share.

    The script sets the width of each panel.
    """
    panels = []
    for at, metric in enumerate(_SHARED):
        names = alt.Axis(labelExpr="labels[datum.value]", ticks=False, domain=False) if not at else None
        panels.append(
            alt.Chart(alt.NamedData(name="rows"), title=alt.Title(metric, anchor="start"))
            .transform_filter(alt.datum.metric == metric)
            .mark_bar(cursor="pointer")
            .encode(
                x=alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3, orient="top")),
                y=alt.Y("i:O", title=None, axis=names),
                color=_colour(metric),
                tooltip=_SHARE_TIPS,
            )
        )
    chart: alt.HConcatChart = alt.hconcat(*panels, spacing=18).add_params(_labels())
    return chart


def _shares_many() -> alt.VConcatChart:
    """The same for many layers: below each other, a narrow column per layer in the order of execution."""
    panels = []
    for at, metric in enumerate(_SHARED):
        title = "layers in order of execution" if at == len(_SHARED) - 1 else None
        panels.append(
            alt.Chart(alt.NamedData(name="rows"), title=alt.Title(metric, anchor="start"), height=90)
            .transform_filter(alt.datum.metric == metric)
            .mark_rect(cursor="pointer")
            .encode(
                x=alt.X("i:Q", title=title, axis=alt.Axis(grid=False), scale=alt.Scale(nice=False)),
                x2="next:Q",
                y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3)),
                y2=alt.datum(0),
                color=_colour(metric),
                tooltip=_SHARE_TIPS,
            )
        )
    chart: alt.VConcatChart = alt.vconcat(*panels, spacing=10)
    return chart


def _memory() -> alt.LayerChart:
    """Bytes alive while each node executes; rows and peaks: step, which, bytes; tips: step, next, node, text."""
    x = alt.X("step:Q", title="nodes in order of execution", axis=alt.Axis(grid=False), scale=alt.Scale(nice=False))
    y = alt.Y("bytes:Q", title=None, stack=None, axis=alt.Axis(labelExpr=_SHORT, tickCount=5))
    colour = alt.Color("which:N", title=None, sort=None, legend=_legend())
    area = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_area(interpolate="step-after", fillOpacity=0.25, line={"strokeWidth": 1.4})
        .encode(x=x, y=y, color=colour)
    )
    peaks = (
        alt.Chart(alt.NamedData(name="peaks"))
        .mark_point(filled=True, size=60, opacity=1)
        .encode(x=x, y=y, color=colour)
    )
    # An area is one thing to point at; columns that nobody sees tell the nodes apart.
    tips = (
        alt.Chart(alt.NamedData(name="tips"))
        .mark_rect(opacity=0, y=0, y2={"expr": "height"})
        .encode(x=x, x2="next:Q", tooltip=[alt.Tooltip("node:N"), alt.Tooltip("text:N", title="alive")])
    )
    chart: alt.LayerChart = alt.layer(area, peaks, tips).add_params(_unit()).properties(width="container", height=240)
    return chart


def _which() -> alt.Color:
    """The colour of the original or the pruned model."""
    return alt.Color("which:N", title=None, scale=alt.Scale(domain=["original", "pruned"]), legend=_legend())


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", title=None)


def _coupling() -> alt.LayerChart:
    """Groups as horizontal lanes, layers as steps from the lanes they read to those they write.

    ``lanes``: x, x2, y, label and text; ``links``: i, x, x2, y, y2; ``dots``: i, x, y, size, name and text (for the
    tooltip). All have a kind, which gives the colour, and a strength, the opacity. The script puts the names of the
    layers below where there is room, as ``labels``.
    """
    names = alt.Axis(
        labelExpr="labels[datum.value] || ''",
        values={"expr": "places"},
        labelAngle=-50,
        labelLimit=130,
        labelOverlap=False,
        ticks=False,
        domain=False,
        grid=False,
        title=None,
    )
    x = alt.X("x:Q", axis=names, scale=alt.Scale(nice=False, zero=False, padding=16))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(nice=False, zero=False, padding=12, reverse=True))
    strength = alt.Opacity("strength:Q", scale=None)
    tips = [alt.Tooltip("name:N", title="layer"), alt.Tooltip("text:N", title="")]
    lit = alt.Color(
        "kind:N",
        title=None,
        sort=None,
        scale=alt.Scale(domain=["may shrink", "pinned", "coupled"]),
        legend=None,
    )
    lane = (
        alt.Chart(alt.NamedData(name="lanes"))
        .mark_rule(strokeWidth=3, strokeCap="round")
        .encode(x=x, x2="x2:Q", y=y, opacity=strength, color=lit, tooltip=[alt.Tooltip("text:N", title="group")])
    )
    size = (
        alt.Chart(alt.NamedData(name="lanes"))
        .mark_text(align="left", dx=8, dy=-8, fontSize=11, color={"expr": "soft"})
        .encode(x=x, y=y, text="label:N", opacity=strength)
    )
    link = (
        alt.Chart(alt.NamedData(name="links"))
        .mark_rule(strokeWidth=1.2)
        .encode(x=x, x2="x2:Q", y=y, y2="y2:Q", opacity=strength, color=lit)
    )
    dot = (
        alt.Chart(alt.NamedData(name="dots"))
        .mark_point(filled=True, cursor="pointer", strokeWidth=2)
        .encode(
            x=x,
            y=y,
            opacity=strength,
            color=lit,
            shape=alt.Shape(
                "kind:N",
                scale=alt.Scale(domain=["may shrink", "pinned", "coupled"], range=["circle", "cross", "circle"]),
                legend=None,
            ),
            size=alt.Size("size:Q", scale=None),
            tooltip=tips,
        )
    )
    chart: alt.LayerChart = (
        alt.layer(lane, link, dot, size)
        .add_params(_labels(), alt.param(name="places", value=[]), alt.param(name="soft", value="gray"))
        .properties(width="container", height=200)
    )
    return chart


def _tradeoff() -> alt.LayerChart:
    """Accuracy over a resource.

    ``points``: run, x, y, mode, label, shown; ``front``: x, y; ``marks``: x, y, kind, label.
    """
    x = alt.X("x:Q", title=None, axis=alt.Axis(labelExpr=_SHORT, tickCount=6), scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title=None, axis=alt.Axis(format="~g", tickCount=6), scale=alt.Scale(zero=False))
    points = (
        alt.Chart(alt.NamedData(name="points"))
        .mark_point(filled=True, cursor="pointer")
        .encode(
            x=x,
            y=y,
            size=alt.Size("size:Q", scale=None),
            opacity=alt.Opacity("strength:Q", scale=None),
            color=alt.Color("mode:N", title=None, scale=alt.Scale(domain={"expr": "modes"}), legend=_legend()),
            shape=alt.Shape(
                "mode:N", title=None, scale=alt.Scale(domain={"expr": "modes"}, range=_SHAPES), legend=_legend()
            ),
            tooltip=[
                alt.Tooltip("label:N", title="run"),
                alt.Tooltip("shownY:N", title="accuracy"),
                alt.Tooltip("shownX:N", title="takes"),
            ],
        )
    )
    front = alt.Chart(alt.NamedData(name="front")).mark_line(strokeDash=[4, 3], strokeWidth=1.5).encode(x=x, y=y)
    picked = alt.datum.kind == "picked"
    marks = (
        alt.Chart(alt.NamedData(name="marks"))
        .mark_point(strokeWidth=2.5, opacity=1)
        .encode(
            x=x,
            y=y,
            shape=alt.condition(picked, alt.value("circle"), alt.value("diamond")),
            size=alt.condition(picked, alt.value(330), alt.value(150)),
            fill=alt.condition(picked, alt.value("transparent"), alt.value(alt.ExprRef("ink"))),
            stroke=alt.condition(picked, alt.value(alt.ExprRef("mark")), alt.value(alt.ExprRef("ink"))),
            tooltip=[alt.Tooltip("label:N", title=""), alt.Tooltip("shownY:N", title="accuracy")],
        )
    )
    names = (
        alt.Chart(alt.NamedData(name="marks"))
        .mark_text(dy=-20, fontSize=12, fontWeight=600, color={"expr": "ink"})
        .encode(x=x, y=y, text="label:N")
    )
    chart: alt.LayerChart = (
        alt.layer(front, points, marks, names)
        .add_params(
            alt.param(name="modes", value=[]),
            alt.param(name="ink", value="black"),
            alt.param(name="mark", value="orange"),
            _unit(),
        )
        .properties(width="container", height=360)
    )
    return chart
