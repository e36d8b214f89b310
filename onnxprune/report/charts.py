"""The charts of the page, as Vega-Lite specifications whose data, sizes and colours the page's script fills in.

The data are named and empty here; every chart says in its docstring which fields its rows have. Colours come from
the page's theme: the scales name no colours but take the configured range of categories.
"""

from __future__ import annotations

from typing import Any

import altair as alt

_SHORT = "datum.value === 0 ? '0' : format(datum.value, '~s')"
"""Labels like 250k; the format alone makes 0k of zero."""


def specifications() -> dict[str, dict[str, Any]]:
    """Every chart by the name of the element that it is drawn in."""
    charts: dict[str, alt.Chart | alt.LayerChart] = {
        "changes": _changes(),
        "changes-many": _changes_many(),
        "shares": _shares(),
        "shares-many": _shares_many(),
        "memory": _memory(),
        "coupling": _coupling(),
    }
    return {name: _plain(chart) for name, chart in charts.items()}


def _plain(chart: alt.LayerChart | alt.Chart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict()
    spec.pop("config", None)  # the page's theme
    return spec


def _labels() -> alt.Parameter:
    """The names of the layers by position, shortened; the script sets them."""
    return alt.param(name="labels", value=[])


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
    chart: alt.LayerChart = alt.layer(before, after).add_params(_labels()).properties(width="container")
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
    chart: alt.LayerChart = alt.layer(before, after).properties(width="container", height=260)
    return chart


_SHARE_TIPS = [
    alt.Tooltip("name:N", title="layer"),
    alt.Tooltip("metric:N", title="of all"),
    alt.Tooltip("share:Q", title="share", format=".2%"),
]
_METRIC = alt.Color(
    "metric:N",
    title=None,
    sort=None,
    scale=alt.Scale(domain=["parameters", "MACs", "memory"]),
    legend=alt.Legend(orient="top"),
)


def _shares() -> alt.Chart:
    """Three bars per layer: its shares of the totals; rows: i, name, metric, share."""
    chart: alt.Chart = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_bar(cursor="pointer")
        .encode(
            x=alt.X(
                "i:O",
                title=None,
                axis=alt.Axis(labelExpr="labels[datum.value]", labelAngle=-40, ticks=False, labelOverlap=True),
            ),
            xOffset=alt.XOffset("metric:N", sort=["parameters", "MACs", "memory"]),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=5)),
            color=_METRIC,
            tooltip=_SHARE_TIPS,
        )
        .add_params(_labels())
        .properties(width="container", height=240)
    )
    return chart


def _shares_many() -> alt.Chart:
    """The same for hundreds of layers: a stepped line per metric."""
    chart: alt.Chart = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_line(interpolate="step", strokeWidth=1.2)
        .encode(
            x=alt.X("i:Q", title="layers in order of execution", axis=alt.Axis(grid=False)),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=5)),
            color=_METRIC,
            tooltip=_SHARE_TIPS,
        )
        .properties(width="container", height=240)
    )
    return chart


def _memory() -> alt.LayerChart:
    """Bytes alive while each node executes; rows: step, node, which, bytes; peaks: step, bytes, which, text."""
    x = alt.X("step:Q", title="nodes in order of execution", axis=alt.Axis(grid=False), scale=alt.Scale(nice=False))
    colour = alt.Color("which:N", title=None, sort=None, legend=_legend())
    area = (
        alt.Chart(alt.NamedData(name="rows"))
        .mark_area(interpolate="step-after", fillOpacity=0.25, line={"strokeWidth": 1.4})
        .encode(
            x=x,
            y=alt.Y("bytes:Q", title=None, stack=None, axis=alt.Axis(labelExpr=_SHORT, tickCount=5)),
            color=colour,
            tooltip=[
                alt.Tooltip("node:N"),
                alt.Tooltip("which:N", title="model"),
                alt.Tooltip("shown:N", title="alive"),
            ],
        )
    )
    peaks = (
        alt.Chart(alt.NamedData(name="peaks"))
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=x,
            y="bytes:Q",
            color=colour,
            tooltip=[alt.Tooltip("node:N", title="peak at"), alt.Tooltip("shown:N", title="alive")],
        )
    )
    chart: alt.LayerChart = alt.layer(area, peaks).properties(width="container", height=240)
    return chart


def _which() -> alt.Color:
    """The colour of the original or the pruned model."""
    return alt.Color("which:N", title=None, scale=alt.Scale(domain=["original", "pruned"]), legend=_legend())


def _legend() -> alt.Legend:
    return alt.Legend(orient="top", title=None)


def _coupling() -> alt.LayerChart:
    """Groups as horizontal lanes, layers as steps from the lanes they read to those they write.

    ``lanes``: x, x2, y; ``links``: i, x, x2, y, y2; ``dots``: i, x, y, size, name and text (for the tooltip). All have
    a kind, which gives the colour, and a strength, the opacity.
    """
    x = alt.X("x:Q", axis=None, scale=alt.Scale(nice=False, zero=False, padding=12))
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
        .encode(x=x, x2="x2:Q", y=y, opacity=strength, color=lit)
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
    chart: alt.LayerChart = alt.layer(lane, link, dot).properties(width="container", height=200)
    return chart
