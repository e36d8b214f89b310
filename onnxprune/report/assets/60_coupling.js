// The coupling graph and what is told of the chosen layer.
const COUPLING = DATA.coupling;
const LANE = new Map(COUPLING.lanes.map(([group, first, last, height]) => [group, { first, last, height }]));
const BOTTOM = Math.max(-1, ...COUPLING.lanes.map((lane) => lane[3])) + 1;
const MEMBERS = membersOf();

function membersOf() {
  const members = new Map();
  const note = (group, i, role) => {
    if (!members.has(group)) members.set(group, { makes: [], reads: [] });
    members.get(group)[role].push(i);
  };
  COUPLING.makes.forEach((groups, i) => groups.forEach((group) => note(group, i, "makes")));
  COUPLING.reads.forEach((groups, i) => groups.forEach((group) => note(group, i, "reads")));
  return members;
}

const heightOf = (group) => LANE.get(group).height;

function couplingRows() {
  const chosen = state.layer;
  const lit = new Set(chosen === null ? [] : COUPLING.makes[chosen]);
  const strength = (on) => (chosen === null ? 0.8 : on ? 1 : 0.22);
  const kind = (on) => (on ? "coupled" : "may shrink");
  const lanes = COUPLING.lanes.map(([group, first, last, y]) => ({
    x: first - (COUPLING.makes[first].includes(group) ? 0 : 0.5), x2: last - (COUPLING.makes[last].includes(group) ? 0 : 0.5),
    y, strength: strength(lit.has(group)), kind: kind(lit.has(group)), label: `${COUPLING.groups[group].atoms}`, text: groupText(group),
  }));
  const links = [];
  const dots = [];
  for (let i = 0; i < COUNT; i += 1) {
    const makes = COUPLING.makes[i];
    const ends = makes.map((group) => ({ y: heightOf(group), pinned: false, on: lit.has(group) }));
    if (LAYERS.prunable[i] < LAYERS.channels[i] || !ends.length) ends.push({ y: BOTTOM, pinned: true, on: false });
    for (const group of COUPLING.reads[i]) {
      const on = lit.has(group) || i === chosen;
      links.push({ i, x: i - 0.5, x2: i, y: heightOf(group), y2: ends[0].y, strength: strength(on), kind: kind(on) });
    }
    for (const { y, pinned, on } of ends) {
      dots.push({
        i, x: i, y, name: LAYERS.name[i], size: i === chosen ? 260 : 90, strength: strength(on || i === chosen),
        kind: pinned ? "pinned" : kind(on),
        text: pinned ? pinText(i) : `${LAYERS.prunable[i]} of ${LAYERS.channels[i]} channels may go`,
      });
    }
  }
  return { lanes, links, dots };
}

function groupText(group) {
  const { makes, reads } = MEMBERS.get(group);
  return `${COUPLING.groups[group].atoms} channels (each goes as a whole), made by ${makes.length} layers and read by ${reads.length}`;
}

function pinText(i) {
  const reasons = [...new Set(COUPLING.pins[i].map((pin) => COUPLING.reasons[pin][0]))];
  return reasons.join("; ") || COUPLING.notes[i] || "its channels must stay";
}

function drawCoupling() {
  const select = byId("layer");
  LAYERS.name.forEach((name, i) => select.append(element("option", { value: i }, name)));
  select.addEventListener("change", () => change({ layer: select.value === "" ? null : Number(select.value) }));
  const place = byId("chart-coupling").parentElement;
  const room = () => place.clientWidth - 12;
  const few = COUNT <= FEW;
  const cue = () => { byId("cue-coupling").hidden = place.scrollWidth <= place.clientWidth + 1; };
  new ResizeObserver(cue).observe(byId("chart-coupling"));
  window.addEventListener("resize", cue);
  onChange(["layer"], () => {
    select.value = state.layer ?? "";
    update("coupling").then(scrollToChosen);
    markChosen();
    tellLayer();
  });
  return chart("coupling", ["after", "bad", "mark"], () => ({
    spec: DATA.charts.coupling, datasets: couplingRows(),
    params: { labels: few ? labels() : [], places: few ? LAYERS.name.map((_, i) => i) : [], soft: themed("soft") },
    width: Math.max(room() - 90, Math.min(COUNT * 28, Math.max(COUNT * 6, 9000))), height: Math.max(90, 32 * (BOTTOM + 2)),
  }));
}

function scrollToChosen() {
  const place = byId("chart-coupling").parentElement;
  const x = (place.scrollWidth * (state.layer ?? 0)) / COUNT;
  if (x < place.scrollLeft || x > place.scrollLeft + place.clientWidth) place.scrollLeft = x - place.clientWidth / 2;
}

function tellLayer() {
  const i = state.layer;
  if (i === null) return byId("detail").replaceChildren();
  const parts = [element("h3", {}, LAYERS.name[i]),
    element("p", {}, `${LAYERS.op[i]}: ${LAYERS.prunable[i]} of ${LAYERS.channels[i]} channels may go` +
      (pruned ? `; ${LAYERS.channels[i] - left(i)} went in ${DATA.candidates[state.candidate]}.` : "."))];
  for (const group of COUPLING.makes[i]) {
    const { atoms, approximate } = COUPLING.groups[group];
    parts.push(element("p", {}, `It writes ${atoms} channels that are shared: each of them goes from all of these layers at once (a group).`), ...memberLists(group, i));
    if (approximate) parts.push(element("p", {}, `Approximate: ${approximate}.`));
  }
  if (LAYERS.prunable[i] < LAYERS.channels[i]) {
    const pins = COUPLING.pins[i].map((pin) => COUPLING.reasons[pin]);
    parts.push(element("p", {}, pins.length ? "Channels that must stay are pinned:" : `Its channels must stay: ${COUPLING.notes[i] ?? "they are pinned"}.`));
    if (pins.length) parts.push(element("ul", {}, ...pins.map(([reason, node, axis]) => element("li", {}, `${reason}: ${node} at ${axis}`))));
  }
  byId("detail").replaceChildren(...parts);
  return undefined;
}

function memberLists(group, chosen) {
  const { makes, reads } = MEMBERS.get(group);
  const others = makes.filter((i) => i !== chosen);
  const list = (title, found) => (found.length ? [element("p", {}, title), element("ul", {}, ...found.slice(0, 40).map((i) => element("li", {}, nameButton(i))),
    found.length > 40 ? element("li", {}, `and ${found.length - 40} more`) : null)] : []);
  return [...list("These layers lose filters, too:", others), ...list("These lose inputs:", reads)];
}
