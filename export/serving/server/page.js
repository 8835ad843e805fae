"use strict";

const KEPT = 60; // Images that the strip remembers.

const element = (id) => document.getElementById(id);
const root = document.documentElement;

let models = [];
let colors = [];
let entries = []; // Newest first.
let selected = null;
let queue = Promise.resolve();

// With the sign that is as wide as a plus.
const format = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");

function say(text, isError = false) {
  element("message").textContent = text;
  element("message").classList.toggle("error", isError);
}

function headers() {
  const token = element("token").value;
  return token ? { authorization: `Bearer ${token}` } : {};
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const isJson = (response.headers.get("content-type") || "").includes("json");
  const answer = isJson ? await response.json() : {};
  if (response.status === 401) element("token-entry").hidden = false;
  if (response.ok) return answer;
  const error = new Error(answer.error || `HTTP ${response.status}`);
  throw Object.assign(error, { status: response.status });
}

async function loadModels() {
  ({ models, colors } = await ask("page.json"));
  const chosen = element("model").value;
  element("model").replaceChildren(
    ...models.map(({ name, version }) =>
      new Option(`${name}, version ${version}`, name, false, name === chosen)),
  );
  element("model").disabled = models.length < 2;
  element("model-choice").hidden = models.length === 0;
  if (!models.length) throw new Error("No model here takes image files.");
  drawScale();
}

async function start() {
  try {
    await loadModels();
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

async function toBase64(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

async function predict(file, mayReload = true) {
  if (!models.length) await loadModels();
  const model = models.find(({ name }) => name === element("model").value);
  const body = JSON.stringify({
    signature_name: "serving_bytes",
    instances: [{ b64: await toBase64(file) }],
  });
  // By version, so that thresholds are those of the model that answers.
  const path = `v1/models/${encodeURIComponent(model.name)}/versions/${model.version}:predict`;
  try {
    const answer = await ask(path, { method: "POST", body });
    return { model, ...answer.predictions[0] };
  } catch (error) {
    if (error.status !== 404 || !mayReload) throw error;
    await loadModels(); // A newer version has come.
    return predict(file, false);
  }
}

function add(files) {
  if (!files.length) return;
  const added = [...files].map((file) => ({ file, url: URL.createObjectURL(file) }));
  for (const entry of added) entry.button = makeButton(entry);
  entries = [...added, ...entries];
  for (const { url } of entries.splice(KEPT)) URL.revokeObjectURL(url);
  showStrip();
  element("drop").classList.add("compact");
  added.forEach((entry, index) => {
    const progress = added.length > 1 ? ` (${index + 1} of ${added.length})` : "";
    queue = queue.then(() => score(entry, progress, index === 0));
  });
}

async function score(entry, progress, isFirst) {
  say(`Scoring ${entry.file.name}${progress} …`);
  delete entry.error;
  try {
    entry.prediction = await predict(entry.file);
  } catch (error) {
    entry.error = error.message;
  }
  showState(entry);
  if (isFirst || selected === null || selected === entry) select(entry);
  else tell(selected);
}

function scoreAgain() {
  const entry = selected;
  if (entry) queue = queue.then(() => score(entry, "", true));
}

function makeButton(entry) {
  const button = document.createElement("button");
  const image = new Image();
  const caption = document.createElement("span");
  image.src = entry.url;
  image.alt = "";
  image.addEventListener("error", () => button.classList.add("broken"));
  caption.textContent = "…";
  button.type = "button";
  button.title = entry.file.name;
  button.append(image, caption);
  button.addEventListener("click", () => select(entry));
  return button;
}

function showStrip() {
  const items = entries.map(({ button }) => {
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  element("strip").replaceChildren(...items);
}

function showState({ button, file, error, prediction }) {
  const flag = error ? "failed" : prediction.is_anomalous ? "anomalous" : "normal";
  button.classList.remove("failed", "anomalous", "normal");
  button.classList.add(flag);
  const text = error ? "failed" : format(prediction.anomaly_score);
  button.lastChild.textContent = text;
  button.setAttribute("aria-label", `${file.name}: ${error ? "" : flag} ${text}`);
}

function select(entry) {
  selected = entry;
  for (const { button } of entries)
    button.setAttribute("aria-pressed", button === entry.button);
  entry.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  tell(entry);
  element("result").hidden = !entry.prediction || Boolean(entry.error);
  if (!element("result").hidden) show(entry);
}

function tell({ file, error }) {
  // The server counts the images of a request; here there is one.
  const text = error && `${file.name}: ${error.replace(/^Image 0 /, "it ")}`;
  say(text || "", Boolean(error));
}

function show({ file, url, prediction }) {
  const { model, anomaly_score: value, is_anomalous: isAnomalous } = prediction;
  element("verdict").className = `tile ${isAnomalous ? "anomalous" : "normal"}`;
  element("flag").textContent = isAnomalous ? "Anomalous" : "Normal";
  element("by").textContent = `says ${model.name}, version ${model.version}`;
  element("rule").textContent = [conflict(prediction), `anomalous ${model.rule}`].filter(Boolean).join("; ");
  element("score").textContent = format(value);
  const hasThreshold = model.threshold > 0;
  element("gauge").hidden = !hasThreshold;
  element("threshold").textContent = model.threshold === null ? "–" : format(model.threshold);
  if (hasThreshold) {
    const share = Math.min(Math.max(value / (2 * model.threshold), 0), 1);
    root.style.setProperty("--score", `${100 * share}%`);
  }
  element("name").textContent = file.name;
  element("size").textContent = "";
  element("image").alt = `The image ${file.name}`;
  element("image").src = url;
  drawHeat(prediction.anomaly_map, model.pixel_threshold);
}

// As `Calibration.describe_conflict`.
function conflict({ model, anomaly_score: score, anomaly_map: map }) {
  const limit = model.peak_threshold ?? model.pixel_threshold;
  if (model.threshold === null || limit === null) return "";
  const byScore = score >= model.threshold;
  const byPixels = map.some((row) => row.some((value) => value >= limit));
  if (byScore === byPixels) return "";
  return byScore ? "image score above its threshold, pixels below" : "pixels above their threshold, image score below";
}

function drawHeat(map, threshold) {
  // Never stretched to the single image, so that normal ones look normal.
  const limit = threshold > 0 ? 2 * threshold : Math.max(...map.map((row) => Math.max(...row)), 1e-6);
  const canvas = element("heat");
  canvas.height = map.length;
  canvas.width = map[0].length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, index) => {
    const level = Math.round(Math.min(Math.max(value / limit, 0), 1) * (colors.length - 1));
    pixels.data.set(colors[level], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  element("middle").textContent = threshold > 0 ? format(threshold, 1) : "";
  element("limit").textContent = `${format(limit, 1)}+`;
  element("unit").textContent = threshold > 0
    ? `Standard deviations of normal pixels. Threshold: ${format(threshold, 1)}.`
    : "Standard deviations of normal pixels, up to the largest here.";
}

function drawScale() {
  const context = element("scale").getContext("2d");
  const pixels = context.createImageData(colors.length, 1);
  colors.forEach((color, index) => pixels.data.set(color, 4 * index));
  context.putImageData(pixels, 0, 0);
}

function showOpacity() {
  root.style.setProperty("--heat", element("opacity").value / 100);
  element("opacity-value").value = `${element("opacity").value} %`;
}

element("image").addEventListener("load", ({ target }) => {
  const { naturalWidth: width, naturalHeight: height } = target;
  root.style.setProperty("--aspect", width / height);
  element("size").textContent = `${width} × ${height} pixels`;
});
element("file").addEventListener("change", ({ target }) => {
  add(target.files);
  target.value = ""; // The same file may be chosen again.
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  // On the whole page: a file dropped beside the box must not replace it.
  document.addEventListener(name, (event) => {
    event.preventDefault();
    const isOver = name === "dragenter" || name === "dragover";
    element("drop").classList.toggle("over", isOver);
    if (name === "drop") add(event.dataTransfer.files);
  });
}
element("settings").addEventListener("submit", (event) => event.preventDefault());
element("token").addEventListener("change", async () => {
  await start();
  if (models.length) scoreAgain();
});
element("model").addEventListener("change", scoreAgain);
element("opacity").addEventListener("input", showOpacity);
showOpacity();
start();
