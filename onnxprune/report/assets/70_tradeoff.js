// The trade-off: recorded runs, the front of those that are never beaten, and the plan of the chosen one.
const RUNS = DATA.tradeoff;
const RESOURCE_TITLES = { params: "parameters", flops: "MACs", memory: "memory", latency: "latency", size: "file size" };
const MANY_POINTS = 1500;
const hidden = new Set();
const runCount = RUNS ? RUNS.runs.accuracy.length : 0;

const word = (name, run) => RUNS.words[name][RUNS.runs[name][run]];
const figure = (name, run) => RUNS.runs[name][run];
const accuracy = (value) => (value === null || value === undefined ? "–" : value.toFixed(4));

function runLabel(run) {
  const steps = [word("then", run), word("precision", run)].filter((step) => !["", "nothing", "float"].includes(step));
  return `${word("mode", run)} −${+(100 * figure("reduce", run)).toPrecision(3)} %, ${word("allocation", run)}, ${word("criterion", run)}, ` +
    ["seed " + figure("seed", run), ...steps].join(", ");
}

function visibleRuns() {
  const { resource } = state;
  return [...Array(runCount).keys()].filter((run) => figure(resource, run) !== null && !hidden.has(word("mode", run)));
}

// The front of what is shown: where modes are hidden, it is that of the others.
function visibleFront() {
  const { resource } = state;
  if (!hidden.size) return RUNS.fronts[resource];
  const rows = visibleRuns().sort((a, b) => figure(resource, a) - figure(resource, b) || figure("accuracy", b) - figure("accuracy", a));
  let best = -Infinity;
  let at = null;
  return rows.filter((run) => {
    const better = figure("accuracy", run) > best;
    const equal = figure("accuracy", run) === best && figure(resource, run) === at;
    if (better) [best, at] = [figure("accuracy", run), figure(resource, run)];
    return better || equal;
  });
}

function tradeoffRows() {
  const { resource } = state;
  const front = new Set(visibleFront());
  const row = (run) => ({
    run, x: figure(resource, run), y: figure("accuracy", run), mode: word("mode", run), label: runLabel(run),
    shownX: shown(resource, figure(resource, run)), shownY: accuracy(figure("accuracy", run)),
    size: run === state.run ? 260 : front.has(run) ? 80 : 36, strength: run === state.run || front.has(run) ? 1 : 0.45,
  });
  const { original } = RUNS;
  const marks = original && original[resource] !== null && original.accuracy !== null
    ? [{ x: original[resource], y: original.accuracy, kind: "original", label: "original", shownY: accuracy(original.accuracy) }] : [];
  const line = visibleFront().map(row);
  // The original is where every front begins: it belongs to the line unless a run is smaller and no worse.
  if (marks.length && !line.some((point) => point.x <= marks[0].x && point.y >= marks[0].y)) line.push(marks[0]);
  for (const [run, name] of RUNS.picked) {
    if (figure(resource, run) !== null) marks.push({ x: figure(resource, run), y: figure("accuracy", run), kind: "picked", label: name, shownY: accuracy(figure("accuracy", run)) });
  }
  return { points: visibleRuns().map(row), front: line.sort((a, b) => a.x - b.x), marks };
}

function drawFront() {
  const front = visibleFront();
  const heads = ["run", "accuracy", ...RUNS.resources.map((name) => RESOURCE_TITLES[name])];
  byId("front").tHead.replaceChildren(element("tr", {}, ...heads.map((title, n) => element("th", { scope: "col", class: n ? "number" : null }, title))));
  byId("front").tBodies[0].replaceChildren(...front.map((run) => element("tr", { class: run === state.run ? "chosen" : null },
    element("td", { class: "name" }, element("button", { type: "button", onclick: () => change({ run }) }, runLabel(run))),
    element("td", { class: "number" }, accuracy(figure("accuracy", run))),
    ...RUNS.resources.map((name) => element("td", { class: "number" }, shown(name, figure(name, run)))))));
  byId("shown-runs").textContent = `${visibleRuns().length} of ${RUNS.count} runs, ${front.length} on the front`;
}

function quoted(text) {
  return /^[\w./:=,-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`;
}

function runCommand(run) {
  const words = ["onnxprune", "prune", DATA.model, "-o", "pruned.onnx", "--mode", word("mode", run), "--reduce", figure("reduce", run),
    "--allocation", word("allocation", run), "--criterion", word("criterion", run), "--seed", figure("seed", run)];
  for (const [name, value] of Object.entries(RUNS.further[run] ?? {})) {
    if (name === word("then", run)) continue;
    const option = `--${name.replaceAll("_", "-")}`;
    if (value === true) words.push(option);
    else if (Array.isArray(value)) value.forEach((item) => words.push(option, item));
    else if (typeof value === "object" && value) Object.entries(value).forEach(([key, item]) => words.push(option, `${key}=${item}`));
    else if (value !== false && value !== null) words.push(option, value);
  }
  if (word("precision", run) === "int8") words.push("--int8", "--calibrate", RUNS.data);
  return words.map((part) => quoted(String(part))).join(" ");
}

function tellRun() {
  const { run } = state;
  if (run === null) return byId("run").replaceChildren();
  const figures = RUNS.resources.map((name) => `${RESOURCE_TITLES[name]} ${shown(name, figure(name, run))}`);
  const then = word("then", run);
  const parts = [element("h3", {}, runLabel(run)), element("p", {}, `Accuracy ${accuracy(figure("accuracy", run))}; ${figures.join(", ")}.`),
    commandBox(runCommand(run))];
  if (!["", "nothing"].includes(then)) {
    const settings = Object.entries(RUNS.further[run]?.[then] ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
    parts.push(element("p", {}, `Then: ${then}${settings ? ` (${settings})` : ""}.`));
  }
  const keeps = RUNS.left[run];
  if (keeps) {
    const rows = LAYERS.name.map((_, i) => i).filter((i) => keeps[i] !== LAYERS.channels[i]);
    parts.push(element("p", {}, `Its plan takes channels from ${rows.length} of ${COUNT} layers:`),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Plan" }, element("table", { class: "figures" }, element("tbody", {},
        ...rows.map((i) => element("tr", {}, element("td", { class: "name" }, nameButton(i)), element("td", { class: "number" }, changed(`${LAYERS.channels[i]}`, `${keeps[i]}`))))))));
  } else {
    parts.push(element("p", { class: "note" }, "The page holds the plans of runs on a front; the results hold them all."));
  }
  return byId("run").replaceChildren(...parts);
}

function tellFailures() {
  const text = { accuracy: "Accuracy is the share of right answers on held-out samples.", r2: "Accuracy is R², the share of the variance that the model explains.",
    agreement: "Accuracy is the agreement with the original, for want of labelled samples." };
  byId("about-runs").textContent = text[RUNS.score] ?? "";
  if (!RUNS.failures) return;
  byId("failures").append(element("h3", {}, `${RUNS.failures} runs failed`),
    element("ul", {}, ...RUNS.failed.map(([label, message]) => element("li", {}, `${label}: ${message}`))));
}

function drawTradeoff() {
  if (!RUNS) return undefined;
  tellFailures();
  const select = byId("resource");
  select.append(...RUNS.resources.map((name) => element("option", { value: name }, RESOURCE_TITLES[name])));
  state.resource = RUNS.resources.includes("latency") ? "latency" : RUNS.resources.includes("flops") ? "flops" : RUNS.resources[0];
  if (!state.resource) {
    byId("shown-runs").textContent = `0 of ${RUNS.count} runs`;
    return undefined;
  }
  select.value = state.resource;
  select.addEventListener("input", () => change({ resource: select.value }));
  for (const mode of RUNS.words.mode) {
    const box = element("input", { type: "checkbox", checked: "", value: mode });
    box.addEventListener("input", () => {
      hidden[box.checked ? "delete" : "add"](mode);
      drawFront();
      update("tradeoff");
    });
    byId("modes").append(element("label", {}, box, mode));
  }
  onChange(["resource", "run"], () => { drawFront(); tellRun(); update("tradeoff"); });
  drawFront();
  return chart("tradeoff", ["after", "third", "good", "bad", "warn", "before"], () => ({
    spec: DATA.charts.tradeoff, datasets: tradeoffRows(), params: { modes: RUNS.words.mode, ink: themed("ink"), mark: themed("mark"), unit: axisUnit(state.resource) },
    renderer: runCount > MANY_POINTS ? "canvas" : "svg",
  }));
}
