const data = JSON.parse(document.getElementById("data").textContent);
const live = data.live;
let runs = data.runs;
const chosen = new Set();
const open = new Set();
const $ = (id) => document.getElementById(id);

function made(kind, className, text) {
  const element = document.createElement(kind);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return seconds < 3600 ? `${(seconds / 60).toFixed(1)} min` : `${Math.floor(seconds / 3600)} h ${Math.round(seconds % 3600 / 60)} min`;
}

function ago(at) {
  const seconds = Math.max(0, Date.now() / 1000 - at);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

const metricOf = (run) => $("metric").value || run.metric;
const valueOf = (run) => run.metrics[metricOf(run)]?.best;

// Runs that differ in nothing but the seed are one row.
function grouped(list) {
  const groups = new Map();
  for (const run of list) {
    const key = $("seeds").checked ? run.group : run.id;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(run);
  }
  return [...groups].map(([key, members]) => ({ key, members }));
}

const valuesOf = (members) => members.map(valueOf).filter((value) => value !== undefined);

function lineOf(members, color, label) {
  const curves = members.map((run) => run.metrics[metricOf(run)]?.curve).filter(Boolean);
  return { ...meanCurve(curves), color, label };
}

function sparkline(members) {
  const { epoch, value, band } = lineOf(members, 0, "");
  const svg = element("svg", { class: "spark", viewBox: "0 0 120 32", "aria-hidden": "true" });
  if (epoch.length < 2) return svg;
  const every = [...value, ...(band ? band.flat() : [])];
  const low = Math.min(...every), high = Math.max(...every);
  const xs = epoch.map((at) => 2 + 116 * (at - epoch[0]) / (epoch.at(-1) - epoch[0]));
  const yOf = (v) => 29 - 26 * (v - low) / (high - low || 1);
  const path = (ps, vs) => "M" + ps.map((x, i) => `${x.toFixed(1)} ${yOf(vs[i]).toFixed(1)}`).join("L");
  if (band) svg.append(element("path", { class: "band c0", d: path([...xs, ...[...xs].reverse()], [...band[1], ...[...band[0]].reverse()]) + "Z" }));
  svg.append(element("path", { class: "line c0", d: path(xs, value) }));
  return svg;
}

function matches(run) {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const settings = Object.entries(run.settings).map(([name, value]) => `${name}=${value} ${name} ${value}`).join(" ");
  const text = `${run.id} ${run.experiment} ${run.state} ${settings} ${run.notes.join(" ")}`.toLowerCase();
  return words.every((word) => text.includes(word)) && (!$("experiment").value || run.experiment === $("experiment").value)
    && (!$("state").value || run.state === $("state").value) && (!$("metric").value || $("metric").value in run.metrics);
}

const ORDERS = {
  updated: (row) => -Math.max(...row.members.map((run) => run.updated)),
  best: (row) => {
    const values = valuesOf(row.members);
    if (!values.length) return Infinity;
    const larger = row.members.some((run) => run.metrics[metricOf(run)]?.larger);
    return (larger ? -1 : 1) * statistics(values).mean;
  },
  name: (row) => row.members[0].id,
  seconds: (row) => -Math.max(...row.members.map((run) => run.seconds ?? 0)),
};

const keptRows = new Map();

// The row of some runs: the one shown before if nothing in it has changed, so that focus and pictures stay.
function rowElement(kind, key, members) {
  const several = members.length > 1;
  const content = JSON.stringify([members, metricOf(members[0]), several && open.has(key)]);
  let { row, before } = keptRows.get(kind + key) ?? {};
  if (before !== content) {
    row = newRow(members, several);
    if (several) row.querySelector(".names").append(seedsButton(key));
    row.classList.toggle("member", kind === "member");
    keptRows.set(kind + key, { row, before: content });
  }
  row.querySelector("input").checked = members.every((member) => chosen.has(member.id));
  return row;
}

function seedsButton(key) {
  const button = made("button", "more", open.has(key) ? "hide seeds" : "each seed");
  button.type = "button";
  button.addEventListener("click", () => { open.has(key) ? open.delete(key) : open.add(key); show(); });
  return button;
}

function newRow(members, several) {
  const run = members[0];
  const row = made("article", "run");
  row.dataset.id = run.id;
  const box = made("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", `choose ${run.id}`);
  box.addEventListener("change", () => {
    for (const member of members) box.checked ? chosen.add(member.id) : chosen.delete(member.id);
    compare();
  });
  const picture = made(run.thumbnail ? "img" : "div", "thumbnail");
  if (run.thumbnail) Object.assign(picture, { src: run.thumbnail, alt: `last sample of ${run.name}`, loading: "lazy" });
  const names = made("div", "names");
  const title = made(live ? "a" : "b", "title", several ? `${run.experiment} (${members.length} seeds)` : run.id);
  if (live) Object.assign(title, { href: "report?" + members.map((m) => "run=" + encodeURIComponent(m.id)).join("&"), target: "_blank", rel: "noopener" });
  names.append(title);
  const settings = Object.entries(run.settings).filter(([name]) => !several || name !== "seed_everything")
    .map(([name, value]) => `${name.split(".").at(-1)} ${value}`).join(", ");
  if (settings) names.append(made("div", "quiet settings-line", settings));
  const notes = members.flatMap((member) => member.notes);
  if (notes.length) names.append(made("div", "note", notes.join("; ")));
  const state = made("div", "state");
  for (const kind of ["training", "finished", "stopped"]) {
    const count = members.filter((member) => member.state === kind).length;
    if (count) state.append(made("span", `badge ${kind}`, several ? `${count} ${kind}` : kind), " ");
  }
  const epoch = Math.min(...members.map((member) => member.epoch)), epochs = run.epochs;
  if (epochs) {
    const progress = made("progress");
    Object.assign(progress, { max: epochs, value: Math.min(epoch, epochs) });
    progress.setAttribute("aria-label", `epoch ${epoch} of ${epochs}`);
    state.append(progress);
  }
  state.append(made("span", "quiet", epochs ? `${epoch} / ${epochs}` : `epoch ${epoch}`));
  const best = made("div", "best");
  const values = valuesOf(members);
  if (values.length) {
    const { mean, sd } = statistics(values);
    best.append(made("b", "", String(Number(mean.toPrecision(4)))));
    if (values.length > 1) best.append(` ± ${Number(sd.toPrecision(2))} (n ${values.length})`);
    best.append(made("div", "quiet", metricOf(run)));
  }
  const when = made("div", "quiet when");
  const times = members.map((member) => member.seconds).filter((seconds) => seconds != null);
  if (times.length) when.append(made("div", "", `trained ${duration(statistics(times).mean)}${several ? " each" : ""}`));
  const updated = when.appendChild(made("div"));
  updated.dataset.at = Math.max(...members.map((member) => member.updated));
  updated.textContent = ago(updated.dataset.at);
  row.append(box, picture, names, state, best, sparkline(members), when);
  return row;
}

function show() {
  const list = runs.filter(matches);
  const order = ORDERS[$("sort").value];
  const rows = grouped(list).map((row) => ({ ...row, at: order(row) }));
  const before = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const kind = (row) => ($("sort").value === "best" ? metricOf(row.members[0]) ?? "" : "");  // values of one metric are compared
  rows.sort((a, b) => before(kind(a), kind(b)) || before(a.at, b.at));
  const elements = [];
  for (const { key, members } of rows) {
    elements.push(rowElement("row", key, members));
    if (members.length > 1 && open.has(key)) for (const run of members) elements.push(rowElement("member", run.id, [run]));
  }
  const shown = $("runs");
  elements.forEach((row, place) => { if (shown.children[place] !== row) shown.insertBefore(row, shown.children[place] ?? null); });
  while (shown.children.length > elements.length) shown.lastElementChild.remove();
  $("empty").hidden = list.length > 0;
  const training = runs.filter((run) => run.state === "training").length;
  const broken = runs.filter((run) => run.notes.length).length;
  $("count").textContent = `${list.length} of ${runs.length} runs` + (training ? `, ${training} training` : "") + (broken ? `, ${broken} with a note` : "");
}

function compare() {
  const list = runs.filter((run) => chosen.has(run.id));
  $("comparison").hidden = list.length === 0;
  if (!list.length) return;
  const rows = grouped(list);
  const label = ({ members }) => {
    const names = Object.entries(members[0].settings).filter(([name]) => members.length === 1 || name !== "seed_everything");
    const told = names.map(([name, value]) => `${name.split(".").at(-1)} ${value}`).slice(0, 3).join(", ");
    return members.length > 1 ? `${members[0].experiment} ${told} (n ${members.length})` : members[0].id;
  };
  // A plot for each metric: one axis for a loss and a FID would show neither.
  const metrics = [...new Set(list.map(metricOf).filter(Boolean))];
  $("plots").replaceChildren(...metrics.map((metric) => {
    const plot = made("div", "plot");
    plot.append(made("h3", "", metric), element("svg", { role: "img", "aria-label": `${metric} by epoch` }), made("figcaption"));
    return plot;
  }));
  metrics.forEach((metric, place) => {
    const plot = $("plots").children[place], svg = plot.querySelector("svg");
    const lines = rows.map((row, number) => lineOf(row.members, number % 10, label(row)))
      .filter((_, number) => metricOf(rows[number].members[0]) === metric);
    drawPlot(svg, lines, { log: $("log").checked, smooth: Number($("smooth").value), width: Math.max(360, Math.min(1100, svg.clientWidth)), height: 300 });
    plot.querySelector("figcaption").replaceChildren(...lines.map((line) => {
      const entry = made("span");
      entry.append(made("i", `swatch c${line.color}`), line.label);
      return entry;
    }), ...(lines.some((line) => line.band) ? [made("span", "quiet", "bands: ± one standard deviation")] : []));
  });
  const names = [...new Set(list.flatMap((run) => Object.keys(run.settings)))]
    .filter((name) => new Set(list.map((run) => run.settings[name])).size > 1);
  const head = made("tr");
  head.append(made("th"), ...list.map((run) => made("th", "", run.id)));
  const rowOf = (name, cellOf) => {
    const row = made("tr");
    row.append(made("th", "", name), ...list.map((run) => made("td", "", cellOf(run) ?? "–")));
    return row;
  };
  const bestOf = (metric) => (run) => run.metrics[metric] && spelled(run.metrics[metric].best);
  $("settings").replaceChildren(head, ...metrics.map((metric) => rowOf(`best ${metric}`, bestOf(metric))),
    ...names.map((name) => rowOf(name, (run) => run.settings[name])));
  const quoted = (text) => (/^[\w.\/=+@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  $("command").textContent = `relit report ${list.map((run) => quoted(`${data.root}/${run.id}`)).join(" ")}`;
  $("full").hidden = !live;
  $("full").href = "report?" + list.map((run) => "run=" + encodeURIComponent(run.id)).join("&");
}

function fill(select, values) {
  if (JSON.stringify(values) === select.dataset.values) return;  // it may be open
  select.dataset.values = JSON.stringify(values);
  const before = select.value;
  while (select.options.length > 1) select.remove(1);
  for (const value of values) select.append(new Option(value, value));
  select.value = values.includes(before) ? before : "";
}

function refresh() {
  fill($("experiment"), [...new Set(runs.map((run) => run.experiment))].sort());
  fill($("metric"), [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort());
  show();
  compare();
}

for (const id of ["filter", "experiment", "state", "metric", "sort", "seeds"]) {
  $(id).addEventListener("input", () => { show(); compare(); });
}
for (const id of ["log", "smooth"]) $(id).addEventListener("input", compare);
$("clear").addEventListener("click", () => { chosen.clear(); show(); compare(); });
refresh();

if (live) {
  let before = "";
  setInterval(async () => {
    if (document.hidden) return;
    for (const updated of document.querySelectorAll("[data-at]")) updated.textContent = ago(updated.dataset.at);
    try {
      const text = await (await fetch("runs.json")).text();
      if (text !== before) { before = text; runs = JSON.parse(text).runs; refresh(); }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
  }, 2000);
}
