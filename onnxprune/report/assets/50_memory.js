// Live bytes over the course of execution.
function memoryRows() {
  const rows = [];
  const peaks = [];
  for (const { name, bytes, nodes } of DATA.memory) {
    let top = 0;
    const own = bytes.map((value, step) => {
      if (value > bytes[top]) top = step;
      return { step, which: name, bytes: value, shown: scaled(value, "B"), node: nodes[step] ?? "" };
    });
    rows.push(...own);
    if (own.length) peaks.push(own[top]);
  }
  return { rows, peaks };
}

function drawMemory() {
  return draw("memory", ["before", "after", "third", "good", "bad", "warn"], () => ({ spec: DATA.charts.memory, datasets: memoryRows() }));
}
