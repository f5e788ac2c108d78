"use strict";

// Theme: the system's, or the one chosen.
const themes = ["system", "light", "dark"];
const button = document.getElementById("theme");
let theme = 0;
button.hidden = false;
button.addEventListener("click", () => {
  theme = (theme + 1) % themes.length;
  if (theme) document.documentElement.dataset.theme = themes[theme];
  else delete document.documentElement.dataset.theme;
  button.textContent = `theme: ${themes[theme]}`;
});

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
  slider.hidden = false;
  show();
}

// Curves: the values nearest to the pointer.
const data = document.getElementById("curves-data");
const plots = data ? JSON.parse(data.textContent).plots : [];
const spelled = (value) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6))
  ? value.toExponential(3) : Number(value.toPrecision(5)).toString();

function element(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function nearest(places, x) {
  let low = 0, high = places.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (places[middle] < x) low = middle; else high = middle;
  }
  return x - places[low] < places[high] - x ? low : high;
}

for (const figure of document.querySelectorAll(".plot")) {
  const lines = plots[figure.dataset.plot];
  const svg = figure.querySelector("svg");
  const box = svg.viewBox.baseVal;
  const layer = svg.appendChild(element("g", {}));
  const tip = figure.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;

  svg.addEventListener("pointermove", (event) => {
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
      layer.append(element("circle", { class: `mark c${line.colour}`, cx: line.x[at], cy: line.y[at], r: 4 }));
      const row = tip.appendChild(document.createElement("div"));
      const swatch = row.appendChild(document.createElement("i"));
      swatch.className = `swatch c${line.colour}`;
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
