// Numbers as people read them, in the same way as the command line.
const UNITS = { params: "", flops: "", memory: "B", time: "s" };

function scaled(value, unit = "") {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let power = 0;
  while (Math.abs(value) >= 999.5 && power < prefixes.length - 1) {
    value /= 1000;
    power += 1;
  }
  const size = Math.abs(value);
  const digits = power === 0 && Number.isInteger(value) ? 0 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${prefixes[power]}${unit}`.trim();
}

function shown(metric, value) {
  if (value === null || value === undefined) return "–";
  if (metric === "time") return value >= 1000 ? `${(value / 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} µs`;
  return scaled(value, UNITS[metric]);
}

function percent(fraction) {
  if (!Number.isFinite(fraction)) return "–";
  if (fraction > 0 && fraction < 0.0005) return "<0.1 %";
  return `${(100 * fraction).toFixed(1)} %`;
}

function shortened(name, width) {
  if (name.length <= width) return name;
  const tail = Math.floor(width / 2);
  return `${name.slice(0, width - tail - 1)}…${name.slice(-tail)}`;
}
