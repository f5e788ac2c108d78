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
  return seconds < 86400 ? `${duration(seconds)} ago` : `${Math.floor(seconds / 86400)} d ago`;
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

function rowElement(members, several) {
  const run = members[0];
  const row = made("article", "run");
  row.dataset.id = run.id;
  const box = made("input");
  box.type = "checkbox";
  box.checked = members.every((member) => chosen.has(member.id));
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
    best.append(made("b", "", spelled(Number(mean.toPrecision(4)))));
    if (values.length > 1) best.append(` ± ${spelled(Number(sd.toPrecision(2)))} (n ${values.length})`);
    best.append(made("div", "quiet", metricOf(run)));
  }
  const when = made("div", "quiet when", `${duration(run.seconds)} · ${ago(Math.max(...members.map((m) => m.updated)))}`);
  row.append(box, picture, names, state, best, sparkline(members), when);
  return row;
}

function show() {
  const list = runs.filter(matches);
  const order = ORDERS[$("sort").value];
  const rows = grouped(list).map((row) => ({ ...row, at: order(row) }));
  rows.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  const parts = document.createDocumentFragment();
  for (const { key, members } of rows) {
    const several = members.length > 1;
    const row = parts.appendChild(rowElement(members, several));
    if (!several) continue;
    const button = made("button", "more", open.has(key) ? "hide seeds" : "each seed");
    button.type = "button";
    button.addEventListener("click", () => { open.has(key) ? open.delete(key) : open.add(key); show(); });
    row.querySelector(".names").append(button);
    if (open.has(key)) for (const run of members) {
      const single = parts.appendChild(rowElement([run], false));
      single.classList.add("member");
    }
  }
  $("runs").replaceChildren(parts);
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
  const lines = rows.map((row, number) => lineOf(row.members, number % 10, label(row)));
  const svg = $("comparison").querySelector("svg");
  drawPlot(svg, lines, { log: $("log").checked, smooth: Number($("smooth").value), width: Math.max(360, Math.min(1100, svg.clientWidth)), height: 300 });
  const metrics = [...new Set(list.map(metricOf).filter(Boolean))];
  const caption = $("comparison").querySelector("figcaption");
  caption.replaceChildren(...lines.map((line) => {
    const entry = made("span");
    entry.append(made("i", `swatch c${line.color}`), line.label);
    return entry;
  }), made("span", "quiet", `${metrics.join(", ")}${lines.some((line) => line.band) ? "; bands: ± one standard deviation" : ""}`));
  const names = [...new Set(list.flatMap((run) => Object.keys(run.settings)))]
    .filter((name) => new Set(list.map((run) => run.settings[name])).size > 1);
  const head = made("tr");
  head.append(made("th"), ...list.map((run) => made("th", "", run.id)));
  $("settings").replaceChildren(head, ...["best", ...names].map((name) => {
    const row = made("tr");
    row.append(made("th", "", name), ...list.map((run) => made("td", "", name === "best" ? (valueOf(run) === undefined ? "–" : spelled(valueOf(run))) : run.settings[name] ?? "–")));
    return row;
  }));
  const quoted = (text) => (/^[\w.\/=+@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  $("command").textContent = `relit report ${list.map((run) => quoted(`${data.root}/${run.id}`)).join(" ")}`;
  $("full").hidden = !live;
  $("full").href = "report?" + list.map((run) => "run=" + encodeURIComponent(run.id)).join("&");
}

function fill(select, values) {
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
    try {
      const text = await (await fetch("runs.json")).text();
      if (text !== before) { before = text; runs = JSON.parse(text).runs; refresh(); }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
  }, 2000);
}
