// Drawing: the specifications come from Python; data, sizes and the colours of the theme are filled in here.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = () => window.innerWidth < 600;
const drawn = new Map();

function theme(palette) {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(`--${name}`).trim();
  const text = { labelColor: colour("soft"), titleColor: colour("soft"), labelFontSize: 12, titleFontSize: 12 };
  return {
    background: "transparent",
    font: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif',
    view: { stroke: null },
    axis: { ...text, titleFontWeight: 400, gridColor: colour("line"), domainColor: colour("line"), tickColor: colour("line"),
      labelLimit: narrow() ? 110 : 260 },
    legend: { ...text, labelFontSize: 13, symbolType: "square" },
    range: { category: palette.map(colour) },
  };
}

// A chart: `make` gives {spec, datasets, params, width, height}; it is drawn anew when the theme or the width class changes.
async function draw(id, palette, make) {
  const { spec, datasets, params = {}, width, height } = make();
  const full = structuredClone(spec);
  full.datasets = { ...full.datasets, ...datasets };
  for (const param of full.params ?? []) {
    if (param.name in params) param.value = params[param.name];
  }
  if (width) full.width = width;
  if (height) full.height = height;
  const result = await vegaEmbed(`#chart-${id}`, full, {
    actions: false, renderer: "svg", config: theme(palette), tooltip: { theme: "custom", disableDefaultStyle: false },
  });
  result.view.addEventListener("click", (_, item) => {
    const i = item?.datum?.i;
    if (Number.isInteger(i)) change({ layer: i });
  });
  drawn.get(id)?.result?.finalize();
  drawn.set(id, { palette, make, result });
}

async function update(id) {
  const { make, result } = drawn.get(id);
  const { datasets } = make();
  for (const [name, rows] of Object.entries(datasets)) result.view.data(name, rows);
  await result.view.runAsync();
}

async function redrawAll() {
  for (const [id, { palette, make }] of [...drawn]) await draw(id, palette, make);
}

let wasNarrow = narrow();
dark.addEventListener("change", redrawAll);
window.addEventListener("resize", () => {
  if (narrow() !== wasNarrow) {
    wasNarrow = narrow();
    redrawAll();
  }
});
