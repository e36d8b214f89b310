// Live bytes over the course of execution.
function memoryRows() {
  const rows = [];
  const peaks = [];
  const { nodes } = DATA.memory[0];
  const tips = nodes.map((node, step) => ({ step, next: step + 1, node, text: "" }));
  for (const { name, bytes } of DATA.memory) {
    let top = 0;
    bytes.forEach((value, step) => {
      if (value > bytes[top]) top = step;
      rows.push({ step, which: name, bytes: value });
      if (tips[step]) tips[step].text += `${tips[step].text && "; "}${name} ${scaled(value, "B")}`;
    });
    // An area ends where its last value begins: the last node needs an end, too.
    if (bytes.length) {
      rows.push({ step: bytes.length, which: name, bytes: bytes.at(-1) });
      peaks.push({ step: top + 0.5, which: name, bytes: bytes[top] });
    }
  }
  return { rows, peaks, tips };
}

function drawMemory() {
  return chart("memory", ["before", "after", "third", "good", "bad", "warn"], () => ({
    spec: DATA.charts.memory, datasets: memoryRows(), params: { unit: "B" },
    renderer: DATA.memory[0].nodes.length > 1500 ? "canvas" : "svg",
  }));
}
