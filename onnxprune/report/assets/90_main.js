// Everything comes together.
function connect(id, act) {
  byId(id)?.addEventListener("input", act);
}

connect("metric", (event) => change({ metric: event.target.value }));
connect("candidate", (event) => change({ candidate: Number(event.target.value) }));
connect("search", drawBody);
onChange(["candidate"], () => { drawBody(); tellLayer(); });
drawHead();
drawBody();
const ofLayers = COUNT ? [drawLayers(), drawCoupling(), drawShares()] : [];
await Promise.all([...ofLayers, drawMemory(), drawTradeoff()]);
document.documentElement.dataset.ready = "yes";
