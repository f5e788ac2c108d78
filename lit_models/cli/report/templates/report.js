// Sliders: each run shows its newest picture up to the chosen epoch, or its first.
for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input");
  const epochs = range.dataset.epochs.split(",").map(Number);
  const show = () => {
    const chosen = epochs[range.value];
    slider.querySelector("output").textContent = chosen;
    range.setAttribute("aria-valuetext", `epoch ${chosen}`);
    for (const frames of slider.parentElement.querySelectorAll(".frames")) {
      const images = [...frames.querySelectorAll("img")];
      const shown = images.filter((image) => Number(image.dataset.epoch) <= chosen).at(-1) ?? images[0];
      for (const image of images) image.hidden = image !== shown;
      frames.querySelector(".epoch").textContent = shown.dataset.epoch;
    }
  };
  range.addEventListener("input", show);
  const button = slider.querySelector(".play");
  let playing = 0;
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!playing));
    button.textContent = playing ? "play" : "stop";
    if (playing) { clearInterval(playing); playing = 0; return; }
    playing = setInterval(() => {
      range.value = (Number(range.value) + 1) % epochs.length;
      show();
    }, Math.max(120, Math.min(500, 6000 / epochs.length)));
  });
  slider.hidden = false;
  show();
}

// Curves: the values nearest to the pointer.
const data = document.getElementById("curves-data");
const plots = data ? JSON.parse(data.textContent).plots : [];
function nearest(places, x) {
  let low = 0, high = places.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] < x) low = middle; else high = middle;
  }
  return x - places[low] < places[high] - x ? low : high;
}

const hidden = new Set();
const layers = new Map();
const drawn = new Map();

for (const figure of document.querySelectorAll(".plot")) {
  const every = plots[figure.dataset.plot];
  const svg = figure.querySelector("svg");
  const box = svg.viewBox.baseVal;
  const layer = element("g", {});
  svg.append(layer);
  layers.set(figure, layer);
  const tip = figure.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;

  svg.addEventListener("pointermove", (event) => {
    const lines = (drawn.get(figure) ?? every).filter((line) => line.x.length);
    if (!lines.length) return;
    const frame = svg.getBoundingClientRect();
    const x = (event.clientX - frame.left) * box.width / frame.width;
    const found = lines.map((line) => ({ line, at: nearest(line.x, x) }));
    const closest = Math.min(...found.map(({ line, at }) => Math.abs(line.x[at] - x)));
    const first = found.find(({ line, at }) => Math.abs(line.x[at] - x) === closest);
    const place = first.line.x[first.at];
    layer.replaceChildren(element("line", { class: "cursor", x1: place, x2: place, y1: 10, y2: box.height - 32 }));
    const head = document.createElement("div");
    head.textContent = `epoch ${spelled(first.line.epoch[first.at])}, step ${first.line.step[first.at]}`;
    tip.replaceChildren(head);
    for (const { line, at } of found) {
      if (Math.abs(line.x[at] - place) > 12) continue;
      layer.append(element("circle", { class: `mark c${line.color}`, cx: line.x[at], cy: line.y[at], r: 4 }));
      const row = tip.appendChild(document.createElement("div"));
      const swatch = row.appendChild(document.createElement("i"));
      swatch.className = `swatch c${line.color}`;
      const value = document.createElement("b");
      value.textContent = spelled(line.value[at]);
      row.append(`${line.label} `, value);
    }
    tip.hidden = false;
    const outer = figure.getBoundingClientRect();
    const left = frame.left - outer.left + place * frame.width / box.width;
    const fits = left + 14 + tip.offsetWidth < outer.width;
    tip.style.left = `${fits ? left + 14 : Math.max(4, left - 14 - tip.offsetWidth)}px`;
    tip.style.top = `${frame.top - outer.top + 12}px`;
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    layer.replaceChildren();
  });
}

// Controls of all curves: axis, scale, smoothing, hidden runs. Nothing is drawn again before one is used.
const controls = document.getElementById("controls");
function redraw() {
  const axis = controls.querySelector("[name=axis]").value;
  const log = controls.querySelector("[name=scale]").value;
  const smooth = Number(controls.querySelector("[name=smooth]").value);
  const pace = document.getElementById("pace");
  if (pace) pace.hidden = axis !== "time";
  for (const figure of document.querySelectorAll(".plot")) {
    const svg = figure.querySelector("svg");
    const every = plots[figure.dataset.plot];
    const single = every.filter((line) => !hidden.has(line.run));
    const lines = controls.querySelector("[name=seeds]")?.checked ? withSeedsTogether(single) : single;
    drawn.set(figure, lines);
    const large = figure.classList.contains("large");
    const logarithmic = log === "auto" ? figure.dataset.logarithmic === "yes" : log === "logarithmic";
    drawPlot(svg, lines, { axis, log: logarithmic, smooth, ...(large ? { width: 1100, height: 520 } : {}) });
    const names = new Map(lines.map((line) => [line.band ? line.groupLabel : document.querySelector("[data-hides]") ? line.run : line.label, line.color]));
    const quiet = figure.querySelectorAll("figcaption .quiet");
    figure.querySelector("figcaption").replaceChildren(...[...names].map(([text, color]) => {
      const entry = document.createElement("span");
      const swatch = entry.appendChild(document.createElement("i"));
      swatch.className = `swatch c${color}`;
      entry.append(text);
      return entry;
    }), ...quiet);
    svg.append(layers.get(figure));
    layers.get(figure).replaceChildren();
  }
}
if (controls) {
  controls.hidden = false;
  for (const input of controls.querySelectorAll("select, input")) input.addEventListener("input", redraw);
  if (controls.querySelector("[name=seeds]")) redraw();
  for (const button of document.querySelectorAll("[data-hides]")) {
    button.addEventListener("click", () => {
      const run = button.dataset.hides;
      hidden.has(run) ? hidden.delete(run) : hidden.add(run);
      for (const same of document.querySelectorAll("[data-hides]")) {
        if (same.dataset.hides === run) same.setAttribute("aria-pressed", String(hidden.has(run)));
      }
      redraw();
    });
  }
  for (const button of document.querySelectorAll(".plot .enlarge")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const large = button.closest(".plot").classList.toggle("large");
      button.textContent = large ? "smaller" : "enlarge";
      redraw();
    });
  }
}

// Pictures: a click shows one in the whole window, Escape or another click closes it.
const viewer = document.getElementById("viewer");
document.addEventListener("click", (event) => {
  if (event.target.closest("#viewer")) { viewer.close(); return; }
  const image = event.target.closest(".pictures img");
  if (!image) return;
  const shown = document.createElement("img");
  viewer.replaceChildren(shown);
  shown.src = image.src;
  shown.alt = image.alt;
  shown.className = image.className;
  viewer.showModal();
});
