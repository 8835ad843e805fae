"use strict";

const INTERVAL = 250; // Milliseconds between questions.
const HIDDEN_INTERVAL = 5000; // Where nobody looks.
const PATIENCE = 10000; // Milliseconds until an answer is given up.
const SHORTEST = 20; // Seconds that the scores show at least.
const GAP = 3; // Seconds without a score that are no line.
const SERVER = "watching has ended, or";
const WIDTH = 800;
const HEIGHT = 200;

let scores = []; // [number, seconds, score, is anomalous], oldest first.
let shown = -1; // Number of the frame in the picture.
let cards = new Map(); // Of alarms, by id.
let timer = 0;
let latest = 0; // Number of the question whose answer is shown.
let began = null; // When the process began that is asked.
let viewed = null; // The alarm that is looked at.

const clock = (time) => new Date(time).toLocaleTimeString();
const moment = (time) => new Date(time).toLocaleString();

async function poll() {
  stopPolling();
  const turn = latest;
  const since = scores.length ? scores[scores.length - 1][0] : -1;
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const live = await askJson(`live.json?since=${since}&shown=${shown}`, { signal });
    if (turn !== latest) return;
    if (live.began !== began) {
      // Another process, whose frames count from 0 again.
      const isFirst = began === null;
      ({ began } = live);
      [scores, shown] = [[], -1];
      if (!isFirst) return poll();
    }
    show(live);
    element("token-entry").hidden = true;
    if (element("message").classList.contains("error")) say("");
  } catch (error) {
    if (turn !== latest) return;
    say(error.message, true);
  }
  if (!isPaused()) timer = setTimeout(poll, document.hidden ? HIDDEN_INTERVAL : INTERVAL);
}

// What was asked for before is no longer shown when it comes.
function stopPolling() {
  clearTimeout(timer);
  latest += 1;
}

function show(live) {
  document.title = `${live.source}: ${live.state}`;
  element("model").textContent = live.model;
  element("source").textContent = live.source;
  element("state").textContent = live.state;
  element("reason").textContent = live.reason;
  const isWell = ["connected", "ended"].includes(live.state);
  element("state-tile").className = `tile ${isWell ? "normal" : "anomalous"}`;
  element("source-rate").textContent = `${live.source_rate} frames/s`;
  element("rate").textContent = `${live.rate} frames/s`;
  element("delay").textContent = live.delay === null ? "–" : `${format(live.delay)} s`;
  element("dropped").textContent = `${live.dropped} of ${live.received}`;
  element("rule").textContent = `Anomalous ${live.rule}`;
  element("threshold").textContent = live.threshold === null ? "none" : format(live.threshold);
  element("now").hidden = false;
  if (live.frame) showFrame(live);
  drawScores(live);
  showAlarms(live.alarms, live.has_older_alarms);
}

function showFrame({ frame, threshold }) {
  element("verdict").className = `tile ${frame.is_anomalous ? "anomalous" : "normal"}`;
  element("flag").textContent = frame.is_anomalous ? "Anomalous" : "Normal";
  element("score").textContent = format(frame.score);
  element("gauge").hidden = !(threshold > 0);
  element("gauge").classList.toggle("anomalous", frame.is_anomalous);
  const share = Math.min(Math.max(frame.score / (2 * threshold), 0), 1);
  root.style.setProperty("--score", `${100 * share}%`);
  element("time").textContent = moment(frame.time);
  if (!frame.image) return;
  shown = frame.number;
  element("image").src = frame.image;
  element("image").alt = `Frame of ${clock(frame.time)}`;
  element("heat").hidden = element("legend").hidden = !frame.heat;
  if (frame.heat) element("heat").src = frame.heat;
}

function drawScores({ scores: added, now, history, threshold }) {
  scores.push(...added);
  const first = scores.findIndex(([, seconds]) => seconds >= now - history);
  scores = first < 0 ? [] : scores.slice(first);
  element("scores-section").hidden = !scores.length;
  if (!scores.length) return;
  const span = Math.min(Math.max(now - scores[0][1], SHORTEST), history);
  // Of each column of pixels the highest; the curve cannot hide a peak.
  const columns = new Map();
  for (const [, seconds, score, flag] of scores) {
    const column = Math.round(WIDTH * (1 - (now - seconds) / span));
    const [most, any] = columns.get(column) || [-Infinity, false];
    columns.set(column, [Math.max(most, score), any || flag]);
  }
  const values = [...columns.values()].map(([score]) => score);
  const high = Math.max(...values, 2 * (threshold ?? 0), 1e-6);
  const low = Math.min(...values, 0);
  const y = (score) => HEIGHT - 4 - ((score - low) / (high - low)) * (HEIGHT - 8);
  let curve = "";
  let above = "";
  let before = -Infinity;
  for (const [x, [score, flag]] of columns) {
    const height = y(score).toFixed(1);
    // A gap where the source was away.
    curve += `${x - before > Math.max(20, (WIDTH * GAP) / span) ? "M" : "L"}${x} ${height}`;
    if (flag) above += `M${x} ${height}v4`;
    before = x;
  }
  element("curve").setAttribute("d", curve);
  element("above").setAttribute("d", above);
  element("limit").toggleAttribute("hidden", threshold === null);
  for (const name of ["y1", "y2"]) element("limit").setAttribute(name, y(threshold ?? 0));
  element("from").textContent = span < 90 ? `${Math.round(span)} s ago` : `${format(span / 60, 1)} min ago`;
  element("chart-caption").textContent =
    `From ${format(low, 1)} to ${format(high, 1)} standard deviations. ` +
    (threshold === null ? "" : `Dashed: the threshold, ${format(threshold)}.`);
}

function showAlarms(alarms, hasOlder) {
  element("alarm-count").textContent = hasOlder ? `last ${alarms.length}` : alarms.length;
  element("no-alarms").hidden = alarms.length > 0;
  const known = cards;
  cards = new Map();
  for (const alarm of alarms) {
    const card = known.get(alarm.id) || makeCard(alarm);
    if (!known.has(alarm.id) && !alarm.is_over) {
      say(`Alarm at ${clock(alarm.time)}, score ${format(alarm.score)}.`);
    }
    tell(card, alarm);
    cards.set(alarm.id, card);
  }
  for (const [id, { image }] of known) {
    if (!cards.has(id)) URL.revokeObjectURL(image.src);
  }
  const items = [...cards.values()].map(({ item }) => item);
  // Left alone while nothing changes, or the focus would go.
  const isSame = items.length === element("alarms").children.length &&
    items.every((item, index) => item === element("alarms").children[index]);
  if (!isSame) element("alarms").replaceChildren(...items);
}

function makeCard(alarm) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = new Image();
  const lines = [document.createElement("span"), document.createElement("span")];
  image.alt = "";
  button.type = "button";
  button.append(image, ...lines);
  item.append(button);
  const card = { item, button, image, lines, alarm };
  button.addEventListener("click", () => view(card.alarm));
  if (alarm.picture) load(alarm.picture).then((url) => { image.src = url; }, () => {});
  return card;
}

function tell(card, alarm) {
  card.alarm = alarm;
  card.button.classList.toggle("on", !alarm.is_over);
  card.lines[0].textContent = moment(alarm.time);
  const highest = alarm.highest_score ?? alarm.score;
  const length = alarm.is_over
    ? (alarm.duration === undefined ? "cut off" : `${format(alarm.duration, 1)} s`)
    : "going on";
  card.lines[1].textContent = `Score up to ${format(highest)}, ${length}`;
}

async function load(path) {
  return URL.createObjectURL(await (await ask(path)).blob());
}

async function view(alarm) {
  viewed = alarm.id;
  const picture = element("viewer-picture");
  const clip = element("viewer-clip");
  element("viewer-title").textContent = `Alarm of ${moment(alarm.time)}`;
  element("viewer-note").textContent = alarm.is_over ? "" : "The clip comes when the alarm is over.";
  picture.alt = `Frame with its heat map, score ${format(alarm.score)}`;
  picture.hidden = clip.hidden = true;
  element("viewer").showModal();
  for (const [path, target] of [[alarm.picture, picture], [alarm.clip, clip]]) {
    if (!path) continue;
    try {
      const url = await load(path);
      // Meanwhile it may have been closed, or another one opened.
      if (viewed !== alarm.id) return URL.revokeObjectURL(url);
      target.src = url;
      target.hidden = false;
    } catch (error) {
      if (viewed === alarm.id) element("viewer-note").textContent = error.message;
    }
  }
}

function isPaused() {
  return element("pause").getAttribute("aria-pressed") === "true";
}

element("image").addEventListener("load", ({ target }) => {
  root.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
});
element("viewer").addEventListener("close", () => {
  viewed = null;
  for (const id of ["viewer-picture", "viewer-clip"]) {
    URL.revokeObjectURL(element(id).src);
    element(id).removeAttribute("src");
  }
});
element("pause").addEventListener("click", ({ target }) => {
  target.setAttribute("aria-pressed", !isPaused());
  if (isPaused()) stopPolling();
  else poll();
});
element("token-entry").addEventListener("submit", (event) => {
  event.preventDefault();
  poll();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !isPaused()) poll();
});
poll();
