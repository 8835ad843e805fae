"use strict";

const root = document.documentElement;
const opacity = document.getElementById("opacity");
const outlines = document.getElementById("outlines");

function showOpacity() {
  root.style.setProperty("--heat", opacity.value / 100);
  document.getElementById("opacity-value").value = `${opacity.value} %`;
}

function showOutlines() {
  root.classList.toggle("no-outlines", !outlines.checked);
}

// Browsers restore both after a reload: begin with what they show.
if (opacity) {
  opacity.addEventListener("input", showOpacity);
  showOpacity();
}
if (outlines) {
  outlines.addEventListener("change", showOutlines);
  showOutlines();
}
