// What the reader has chosen, and who wants to know of changes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { metric: "flops", candidate: 0, layer: null, run: null, resource: null };
const listeners = [];

function onChange(keys, act) {
  listeners.push({ keys, act });
}

function change(news) {
  const changed = Object.keys(news).filter((key) => state[key] !== news[key]);
  Object.assign(state, news);
  for (const { keys, act } of listeners) {
    if (keys.some((key) => changed.includes(key))) act();
  }
}

const byId = (id) => document.getElementById(id);

// Elements, never markup: names come from models and may hold anything.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
