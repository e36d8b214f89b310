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
await Promise.all([drawLayers(), drawCoupling(), drawShares(), drawMemory(), drawTradeoff()]);
document.documentElement.dataset.ready = "yes";
