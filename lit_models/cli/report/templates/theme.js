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
