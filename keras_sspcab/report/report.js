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

const cards = [...document.querySelectorAll(".card")];
const homes = new Map(cards.map((card) => [card, card.parentElement]));
const sorted = document.getElementById("sorted");
const picks = document.querySelector(".picks");
const isShown = (card) => !card.hidden;

// Shows the cards that were chosen, in groups or all of them by their scores.
function arrange() {
  const value = (name) => document.getElementById(name)?.value ?? "";
  const [outcome, kind, order] = ["outcome", "kind", "order"].map(value);
  const sign = order === "low" ? 1 : -1;
  const all = [...cards];
  if (order) {
    all.sort((a, b) => sign * (a.dataset.score - b.dataset.score));
  }
  for (const card of all) {
    card.hidden =
      (outcome && card.dataset.outcome !== outcome) ||
      (kind && card.dataset.kind !== kind);
    (order ? sorted : homes.get(card)).append(card);
  }
  for (const group of document.querySelectorAll(".group")) {
    group.hidden = !group.querySelector(".card:not([hidden])");
  }
  sorted.hidden = !order;
  showCount();
}

function showCount() {
  const count = cards.filter(isShown).length;
  document.getElementById("count").value = `${count} of ${cards.length}`;
}

if (picks) {
  picks.hidden = false;
  picks.addEventListener("change", arrange);
  const isChosen = [...picks.querySelectorAll("select")].some((s) => s.value);
  // To move thousands of cards to where they are takes its time.
  (isChosen ? arrange : showCount)();
}

const viewer = document.getElementById("viewer");
let current = null;

function enlarge(card) {
  const frame = card.querySelector(".frame");
  const view = viewer.querySelector(".view");
  current = card;
  view.className = `view ${card.dataset.outcome}`;
  view.style.setProperty("--ratio", frame.style.getPropertyValue("--ratio"));
  view.replaceChildren(
    frame.querySelector(".stack").cloneNode(true),
    card.querySelector("figcaption").cloneNode(true),
  );
  if (!viewer.open) {
    viewer.showModal();
  }
}

function step(by) {
  // The order on the page, which may be another one by now.
  const shown = [...document.querySelectorAll(".card")].filter(isShown);
  const next = shown[shown.indexOf(current) + by];
  if (next) {
    enlarge(next);
  }
}

if (viewer) {
  document.querySelector("#gallery").addEventListener("click", ({ target }) => {
    if (target.closest(".frame")) enlarge(target.closest(".card"));
  });
  const on = (id, action) =>
    document.getElementById(id).addEventListener("click", action);
  on("previous", () => step(-1));
  on("next", () => step(1));
  on("close", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    step({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0);
  });
}
