// Plots: curves with axes, by epoch, step or time, linear or logarithmic, smoothed or as logged.

const MARGIN = { left: 54, right: 12, top: 10, bottom: 32 };

function element(kind, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const spelled = (value) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6))
  ? value.toExponential(3) : Number(value.toPrecision(5)).toString();

function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) ?? 10);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(at * step);
  return found;
}

function powers(low, high) {
  const found = [];
  const factors = Math.log10(high / low) > 2 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found.length ? found : [low];
}

// The exponential moving average whose first value is the first one logged; it forgets by 1 - weight a value.
function smoothed(values, weight) {
  let mean = 0, total = 0;
  return values.map((value) => {
    mean = weight * mean + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return mean / total;
  });
}

function statistics(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const sd = values.length > 1 ? Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)) : 0;
  return { mean, sd };
}

// The mean of several runs' curves at the epochs that at least two (or the only one) have, with a band of one sd.
function meanCurve(curves) {
  const at = new Map();
  for (const curve of curves) for (const [epoch, value] of curve) {
    if (!at.has(epoch)) at.set(epoch, []);
    at.get(epoch).push(value);
  }
  const needed = Math.min(2, curves.length);
  const epochs = [...at.keys()].filter((epoch) => at.get(epoch).length >= needed).sort((a, b) => a - b);
  const parts = epochs.map((epoch) => statistics(at.get(epoch)));
  const value = parts.map((part) => part.mean);
  const band = curves.length > 1 ? [parts.map((p) => p.mean - p.sd), parts.map((p) => p.mean + p.sd)] : undefined;
  return { epoch: epochs, value, band };
}

// Lines of the same group and stage as their mean with a band of one standard deviation, at the first's epochs and steps
// and the mean time.
function withSeedsTogether(lines) {
  const groups = new Map();
  for (const line of lines) {
    const key = JSON.stringify([line.group, line.stage]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(line);
  }
  return [...groups.values()].map((members) => {
    if (members.length === 1) return members[0];
    const [first] = members;
    const last = Math.min(...members.map((line) => line.epoch.at(-1)));
    const kept = first.epoch.map((epoch, i) => i).filter((i) => first.epoch[i] <= last + 1e-9);
    const parts = kept.map((i) => statistics(members.map((line) => interpolated(line, first.epoch[i]))));
    const timed = members.every((line) => line.time);
    const timeAt = (epoch) => statistics(members.map((line) => interpolated(line, epoch, line.time))).mean;
    const pick = (values) => values && kept.map((i) => values[i]);
    return {
      ...first, label: `${first.groupLabel} ${first.stage}`, averaged: first.averaged,
      epoch: pick(first.epoch), step: pick(first.step), time: timed ? kept.map((i) => timeAt(first.epoch[i])) : null, value: parts.map((part) => part.mean),
      band: [parts.map((part) => part.mean - part.sd), parts.map((part) => part.mean + part.sd)],
    };
  });
}

function interpolated(line, epoch, values = line.value) {
  const at = line.epoch.findIndex((other) => other >= epoch - 1e-9);
  if (at <= 0) return values[at < 0 ? values.length - 1 : 0];
  const share = (epoch - line.epoch[at - 1]) / (line.epoch[at] - line.epoch[at - 1]);
  return values[at - 1] + share * (values[at] - values[at - 1]);
}

// Draws lines ({label, color, epoch, step, time, value, dashed, band: [low, high]}) into an SVG; adds to each line the
// places of its points, for the pointer.
function drawPlot(svg, lines, { axis = "epoch", log = false, smooth = 0, width = 440, height = 250 } = {}) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const shown = lines.filter((line) => line.value.length && line[axis]);  // the time of some runs isn't known
  for (const line of lines) line.x = line.y = [];
  if (!shown.length) return;
  const positions = (line) => line[axis];
  const all = shown.flatMap((line) => [...line.value, ...(line.band ? line.band.flat() : [])]);
  const positive = all.filter((value) => value > 0);
  const logarithmic = log && positive.length > 0;
  let low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
  for (const value of logarithmic ? positive : all) { low = Math.min(low, value); high = Math.max(high, value); }
  for (const line of shown) for (const at of positions(line)) { first = Math.min(first, at); last = Math.max(last, at); }
  if (first < last / 3) first = 0;
  const scale = logarithmic ? (value) => Math.log10(Math.max(value, low)) : (value) => value;
  const margin = 0.05 * (scale(high) - scale(low)) || Math.abs(scale(low)) * 0.05 || 1;
  const bottom = scale(low) - margin, top = scale(high) + margin;
  const right = width - MARGIN.right, floor = height - MARGIN.bottom;
  const xOf = (at) => MARGIN.left + (right - MARGIN.left) * (at - first) / (last - first || 1);
  const yOf = (value) => floor - (floor - MARGIN.top) * (scale(value) - bottom) / (top - bottom);
  for (const tick of ticks(first, last, 6)) {
    const x = xOf(tick);
    svg.append(element("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: floor }));
    svg.append(element("text", { x, y: floor + 15, "text-anchor": "middle" }, spelled(tick)));
  }
  for (const tick of logarithmic ? powers(low, high) : ticks(bottom, top, 5)) {
    const y = yOf(tick);
    svg.append(element("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y }));
    svg.append(element("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, spelled(tick)));
  }
  const unit = axis === "time" ? "minutes" : axis;
  svg.append(element("text", { class: "axis", x: (width + MARGIN.left - MARGIN.right) / 2, y: height - 3, "text-anchor": "middle" }, unit));
  const path = (xs, ys) => "M" + xs.map((x, i) => `${x.toFixed(1)} ${ys[i].toFixed(1)}`).join("L");
  for (const line of shown) {
    line.x = positions(line).map(xOf);
    line.y = line.value.map(yOf);
    const kind = `line c${line.color}${line.dashed ? " dashed" : ""}`;
    if (line.band) {
      const [lows, highs] = line.band.map((values) => values.map(yOf));
      const back = [...line.x].reverse(), down = [...lows].reverse();
      svg.append(element("path", { class: `band c${line.color}`, d: path([...line.x, ...back], [...highs, ...down]) + "Z" }));
    }
    if (smooth > 0) {
      svg.append(element("path", { class: `${kind} pale`, d: path(line.x, line.y) }));
      svg.append(element("path", { class: kind, d: path(line.x, smoothed(line.value, smooth).map(yOf)) }));
    } else {
      svg.append(element("path", { class: kind, d: path(line.x, line.y) }));
    }
    if (line.x.length <= 30) {
      line.x.forEach((x, i) => svg.append(element("circle", { class: `c${line.color}`, cx: x, cy: line.y[i], r: 2.6 })));
    }
  }
}
