// Drawing: the specifications come from Python; data, sizes and the colours of the theme are filled in here.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const narrow = () => window.innerWidth < 600;
const drawn = new Map();

function theme(palette) {
  const colour = themed;
  const text = { labelColor: colour("soft"), titleColor: colour("soft"), labelFontSize: 12, titleFontSize: 12 };
  return {
    background: "transparent",
    font: 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif',
    view: { stroke: null },
    line: { color: colour("soft") },
    point: { color: colour("ink") },
    title: { color: colour("ink"), fontSize: 13, fontWeight: 600 },
    axis: { ...text, titleFontWeight: 400, gridColor: colour("line"), domainColor: colour("line"), tickColor: colour("line"),
      labelLimit: narrow() ? 150 : 260 },
    legend: { ...text, labelFontSize: 13, symbolType: "square" },
    range: { category: palette.map(colour) },
  };
}

// A chart: `make` gives {spec, datasets, params, width, height, renderer}, by what is chosen at that time. It is drawn when
// the reader comes near it, and anew when the theme or the width class changes.
function chart(id, palette, make) {
  const place = byId(`chart-${id}`);
  drawn.set(id, { palette, make, result: null });
  if (place.getBoundingClientRect().top < window.innerHeight) return draw(id);
  waiting.set(place, id);
  observer.observe(place);
  return undefined;
}

const waiting = new Map();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
}, { rootMargin: "400px" });

function drawNow(place) {
  const id = waiting.get(place);
  waiting.delete(place);
  observer.unobserve(place);
  return id === undefined ? undefined : draw(id);
}

function draw(id) {
  const entry = drawn.get(id);
  const before = entry.result;
  entry.result = embed(id, entry).then(async (result) => {
    (await before)?.finalize();
    return result;
  });
  return entry.result;
}

async function embed(id, { palette, make }) {
  const { spec, datasets, params = {}, width, height, renderer = "svg" } = make();
  const place = byId(`chart-${id}`);
  place.setAttribute("aria-busy", "true");
  const full = structuredClone(spec);
  full.datasets = { ...full.datasets, ...datasets };
  for (const param of full.params ?? []) {
    if (param.name in params) param.value = params[param.name];
  }
  if (width) full.width = width;
  if (height) full.height = height;
  const result = await vegaEmbed(place, full, {
    actions: false, renderer, config: theme(palette), tooltip: { theme: "custom", disableDefaultStyle: false },
  });
  place.removeAttribute("aria-busy");
  result.view.addEventListener("click", (_, item) => {
    const { i, run } = item?.datum ?? {};
    if (Number.isInteger(i)) change({ layer: i });
    if (Number.isInteger(run)) change({ run });
  });
  return result;
}

// Show what is chosen now.
async function update(id) {
  const { make, result } = drawn.get(id);
  if (!result) return;  // not drawn yet: it will be by what is chosen then
  const place = byId(`chart-${id}`);
  place.setAttribute("aria-busy", "true");
  const { view } = await result;
  const { datasets, params = {} } = make();
  for (const [name, value] of Object.entries(params)) view.signal(name, value);
  for (const [name, rows] of Object.entries(datasets)) view.data(name, rows);
  await view.runAsync();
  place.removeAttribute("aria-busy");
}

async function redrawAll() {
  for (const [id, { result }] of drawn) if (result) await draw(id);
}

// Panels side by side do not follow the width of the window by themselves.
let settling = 0;
function fitShares() {
  clearTimeout(settling);
  settling = setTimeout(() => { if (drawn.get("shares")?.result) draw("shares"); }, 150);
}

let wasNarrow = narrow();
dark.addEventListener("change", redrawAll);
window.addEventListener("resize", () => {
  fitShares();
  if (narrow() !== wasNarrow) {
    wasNarrow = narrow();
    redrawAll();
  }
});
window.addEventListener("beforeprint", () => [...waiting.keys()].forEach(drawNow));
