// Numbers as people read them, in the same way as the command line.
const UNITS = { params: "", flops: "", memory: "B", size: "B" };

// Behind the numbers of an axis, which have prefixes already.
const axisUnit = (metric) => ({ time: "s", latency: "s" })[metric] ?? UNITS[metric] ?? "";

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

function duration(seconds) {
  for (const [factor, unit] of [[1, "s"], [1e3, "ms"]]) {
    if (seconds * factor >= 0.9995) return `${scaled(seconds * factor)} ${unit}`;
  }
  return `${scaled(seconds * 1e6)} µs`;
}

function shown(metric, value) {
  if (value === null || value === undefined) return "–";
  if (metric === "time" || metric === "latency") return duration(value);
  return scaled(value, UNITS[metric]);
}

function percent(fraction) {
  if (!Number.isFinite(fraction)) return "–";
  if (fraction > 0 && fraction < 0.0005) return "<0.1 %";
  return `${(100 * fraction).toFixed(1)} %`;
}
