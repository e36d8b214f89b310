// The layers: bars before and after, shares, and the table.
const LAYERS = DATA.layers;
const COUNT = LAYERS.name.length;
// Up to so many layers have names in the charts.
const FEW = 80;
const pruned = DATA.candidates.length > 0;
const METRIC_TITLES = { params: "parameters", flops: "MACs", memory: "memory", time: "time" };
const labels = () => (narrow() ? LAYERS.narrow : LAYERS.label);

const before = (metric, i) => DATA.metrics[metric].before[i];
const after = (metric, i) => DATA.metrics[metric].after[state.candidate]?.[i] ?? null;
const left = (i) => LAYERS.left[state.candidate]?.[i] ?? LAYERS.channels[i];
const arrow = (old, now) => (now === null || old === now ? `${old}` : `${old} → ${now}`);

function changeRows() {
  const { metric } = state;
  return LAYERS.name.map((name, i) => {
    const old = before(metric, i);
    const now = after(metric, i);
    return {
      i, next: i + 0.85, name, op: LAYERS.op[i], channels: arrow(LAYERS.channels[i], left(i)), before: old, after: now,
      shownBefore: shown(metric, old), shownAfter: shown(metric, now),
      removed: old && now !== null ? percent(1 - now / old) : "–",
    };
  });
}

function shareRows() {
  const metrics = ["params", "flops", "memory"];
  const sums = metrics.map((metric) => DATA.totals[metric] || 1);
  return metrics.flatMap((metric, m) =>
    LAYERS.name.map((name, i) => ({ i, next: i + 0.85, name, metric: METRIC_TITLES[metric], share: before(metric, i) / sums[m] })));
}

function drawLayers() {
  const many = COUNT > FEW;
  onChange(["metric", "candidate"], () => update("changes"));
  return chart("changes", ["before", "after"], () => ({
    spec: changesSpec(many ? "changes-many" : "changes"),
    datasets: { rows: changeRows() },
    params: { ...(many ? {} : { labels: labels() }), unit: axisUnit(state.metric) },
    height: many ? undefined : COUNT * 20,
    renderer: COUNT > 500 ? "canvas" : "svg",
  }));
}

// Without a pruned model, the bars of the original are all there is.
function changesSpec(name) {
  const spec = DATA.charts[name];
  return pruned ? spec : { ...spec, layer: spec.layer.slice(0, 1) };
}

// Three panels of the same layers: beside each other with names, below each other where there are many.
function sharesSpec() {
  const room = byId("chart-shares").clientWidth;
  const many = COUNT > FEW;
  const spec = structuredClone(DATA.charts[many ? "shares-many" : "shares"]);
  if (many) spec.vconcat.forEach((panel) => { panel.width = room - 60; });
  else {
    const named = narrow() ? 105 : 190;
    spec.hconcat.forEach((panel) => { panel.width = Math.max(40, (room - named - 60) / 3); panel.height = Math.max(60, COUNT * 18); });
  }
  return spec;
}

function drawShares() {
  return chart("shares", ["third", "after", "before"], () => ({
    spec: sharesSpec(), datasets: { rows: shareRows() },
    params: COUNT > FEW ? {} : { labels: labels() },
    renderer: COUNT > 500 ? "canvas" : "svg",
  }));
}

// The table

const costColumn = (metric) => ({
  title: METRIC_TITLES[metric], number: true,
  value: (i) => after(metric, i) ?? before(metric, i) ?? -1,
  cell: (i) => changed(shown(metric, before(metric, i)), after(metric, i) === null ? null : shown(metric, after(metric, i))),
});
const COLUMNS = [
  { title: "layer", value: (i) => i, cell: (i) => nameButton(i), kind: "name" },
  { title: "op", value: (i) => LAYERS.op[i], cell: (i) => LAYERS.op[i] },
  { title: "channels", number: true, value: left, cell: (i) => changed(`${LAYERS.channels[i]}`, pruned ? `${left(i)}` : null) },
  { title: "may go", number: true, value: (i) => LAYERS.prunable[i], cell: (i) => `${LAYERS.prunable[i]}` },
  ...Object.keys(DATA.metrics).map(costColumn),
  ...(pruned ? [{ title: "MACs removed", number: true, value: removedShare, cell: (i) => percent(removedShare(i)) }] : []),
];
const sorting = { column: 0, descending: false };

function removedShare(i) {
  return before("flops", i) ? 1 - after("flops", i) / before("flops", i) : 0;
}

function nameButton(i) {
  return element("button", { type: "button", title: LAYERS.name[i], onclick: () => change({ layer: i }) }, labels()[i]);
}

function changed(old, now) {
  if (now === null || old === now) return old;
  const cell = document.createDocumentFragment();
  cell.append(element("span", { class: "was" }, `${old} → `), now);
  return cell;
}

function drawHead() {
  const cells = COLUMNS.map((column, index) => {
    const sort = () => {
      sorting.descending = sorting.column === index ? !sorting.descending : Boolean(column.number);
      sorting.column = index;
      drawHead();
      drawBody();
      byId("layers").tHead.rows[0].cells[index].firstChild.focus();
    };
    const order = sorting.column !== index ? null : sorting.descending ? "descending" : "ascending";
    return element("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": order },
      element("button", { type: "button", onclick: sort }, column.title));
  });
  byId("layers").tHead.replaceChildren(element("tr", {}, ...cells));
}

function drawBody() {
  const wanted = byId("search").value.trim().toLowerCase();
  const { value } = COLUMNS[sorting.column];
  const rows = [...LAYERS.name.keys()]
    .filter((i) => `${LAYERS.name[i]} ${LAYERS.op[i]}`.toLowerCase().includes(wanted))
    .map((i) => [value(i), i])
    .sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : i - j));
  if (sorting.descending) rows.reverse();
  byId("layers").tBodies[0].replaceChildren(...rows.map(([, i]) => element("tr", { "data-i": i, class: i === state.layer ? "chosen" : null },
    ...COLUMNS.map((column) => element("td", { class: column.kind ?? (column.number ? "number" : null) }, column.cell(i))))));
  byId("found").textContent = wanted ? `${rows.length} of ${COUNT} layers` : `${COUNT} layers`;
}

function markChosen() {
  for (const row of byId("layers").tBodies[0].rows) row.classList.toggle("chosen", Number(row.dataset.i) === state.layer);
}
