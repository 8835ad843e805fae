"use strict";

const KEPT = 60; // Images that the strip remembers.
const SERVER = "server";
const DRIFT_SECONDS = 15; // How often it is asked whether images look otherwise.

let models = [];
let colors = [];
let entries = []; // Newest first.
let selected = null;
let canMark = false;
let loading = null; // The answer about models that is under way.
let queue = Promise.resolve();

function send(path, query, body = "") {
  return askJson(`${path}?${new URLSearchParams(query)}`, {
    method: "POST", body, headers: { "content-type": "application/octet-stream" },
  });
}

// Who asks while an answer is under way gets the same.
function loadModels() {
  loading ??= findModels().finally(() => { loading = null; });
  return loading;
}

async function findModels() {
  const found = await askJson("page.json");
  for (const model of found.models) model.labels = model.region_labels && await unpack(model.region_labels);
  ({ models, colors, feedback: canMark } = found);
  const chosen = element("model").value;
  element("model").replaceChildren(
    ...models.map(({ name, version }) =>
      new Option(`${name}, version ${version}`, name, false, name === chosen)),
  );
  element("model").disabled = models.length < 2;
  element("model-choice").hidden = models.length === 0;
  showVersions();
  showDrift();
  if (!models.length) throw new Error("No model here takes image files and gives maps.");
  drawScale();
}

function showDrift() {
  const { drifts = [], num_images: count } = chosenModel()?.drift || {};
  element("drift").hidden = !drifts.length;
  if (!drifts.length) return;
  const times = drifts.map(({ since_time: time }) => time).filter(Boolean);
  const since = times.length ? ` since ${new Date(1000 * Math.min(...times)).toLocaleString()}` : "";
  element("drift-title").textContent = `Images look different from the normal ones of the training${since}.`;
  element("drifts").replaceChildren(
    ...drifts.map(({ text }) => Object.assign(document.createElement("li"), { textContent: `${text} of ${count} watched.` })),
  );
  element("drift-advice").textContent = `${drifts[0].advice}.`;
}

// Others ask this server as well.
async function watchDrift() {
  if (!models.length) return;
  const now = await askJson("page.json").catch(() => ({ models: [] }));
  for (const model of models) {
    const same = now.models.find(({ name, version }) => name === model.name && version === model.version);
    if (same) model.drift = same.drift;
  }
  showDrift();
}

const chosenModel = () => models.find(({ name }) => name === element("model").value);

function showVersions() {
  const { version: served, versions = [] } = chosenModel() || {};
  element("version-choice").hidden = versions.length < 2;
  element("version").replaceChildren(
    ...versions.map((number) => new Option(number === served ? `${number}, served` : number, number, false, number === served)),
  );
  showVersionButton();
}

function showVersionButton() {
  const { version: served } = chosenModel() || {};
  const wanted = element("version").value;
  element("serve-version").hidden = !wanted || Number(wanted) === served;
  element("serve-version").textContent = `Serve version ${wanted} from now on`;
}

// Also for all others who ask this server.
async function serveVersion() {
  const { name } = chosenModel(); // Another may be chosen meanwhile.
  const wanted = Number(element("version").value);
  const isServed = () => models.some((model) => model.name === name && model.version === wanted);
  element("serve-version").disabled = true;
  say(`Loading version ${wanted} …`);
  try {
    await send("version", { model: name, version: wanted });
    for (let tries = 0; tries < 120 && !isServed(); tries++) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      await loadModels();
      if (element("model").value === name) element("version").value = wanted;
    }
    say(isServed() ? `Version ${wanted} is served.` : `Version ${wanted} cannot be loaded; see the log of the server.`, !isServed());
    showVersions();
    if (isServed()) scoreAgain();
  } catch (error) {
    say(error.message, true);
  } finally {
    element("serve-version").disabled = false;
  }
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
  const model = chosenModel();
  const body = JSON.stringify({
    signature_name: "serving_bytes",
    instances: [{ b64: await toBase64(file) }],
  });
  // By version, so that thresholds are those of the model that answers.
  const path = `v1/models/${encodeURIComponent(model.name)}/versions/${model.version}:predict`;
  try {
    const answer = await askJson(path, { method: "POST", body });
    const prediction = answer.predictions[0];
    const own = { ...model, ...model.products[prediction.product_index] };
    return { model: own, peak: highest(prediction.anomaly_map), ...prediction };
  } catch (error) {
    if (error.status !== 404 || !mayReload) throw error;
    await loadModels(); // A newer version has come.
    return predict(file, false);
  }
}

function add(files) {
  if (!files.length) return;
  const added = [...files].slice(0, KEPT).map((file) => ({ file, url: URL.createObjectURL(file) }));
  for (const entry of added) entry.button = makeButton(entry);
  entries = [...added, ...entries];
  for (const { url } of entries.splice(KEPT)) URL.revokeObjectURL(url);
  showStrip();
  element("drop").classList.add("compact");
  added.forEach((entry, index) => {
    const progress = added.length > 1 ? ` (${index + 1} of ${added.length})` : "";
    enqueue(() => score(entry, progress, index === 0));
  });
  if (files.length > KEPT) enqueue(() => say(`Only the first ${KEPT} of ${files.length} images were taken.`));
}

// What fails must not hold up the images behind it.
function enqueue(task) {
  queue = queue.then(task).catch((error) => say(error.message, true));
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
  showCounts();
  if (isFirst || selected === null || selected === entry) select(entry);
  else tell(selected);
}

// Whether an image was scored by the version that is chosen now.
function isCurrent({ prediction, error }) {
  const { name, version } = chosenModel() || {};
  return prediction && !error && prediction.model.name === name && prediction.model.version === version;
}

// All images, the one that is looked at first. Also those that are current: they
// may be under way with the model that was chosen before.
function scoreAgain() {
  const all = [...entries].sort((a, b) => (b === selected) - (a === selected));
  all.forEach((entry, index) => {
    if (!isCurrent(entry)) showWaiting(entry);
    const progress = all.length > 1 ? ` (${index + 1} of ${all.length})` : "";
    enqueue(() => isCurrent(entry) ? showState(entry) : score(entry, progress, false));
  });
}

function makeButton(entry) {
  const button = document.createElement("button");
  const image = new Image();
  const caption = document.createElement("span");
  image.src = entry.url;
  image.alt = "";
  image.addEventListener("error", () => button.classList.add("broken"));
  button.type = "button";
  button.title = entry.file.name;
  button.append(image, caption);
  showWaiting({ ...entry, button });
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

const highest = (map) => map.reduce((most, row) => Math.max(most, ...row), -Infinity);
const isCalibrated = () => element("sensitivity").value === "50";

// As `Calibration.adjusted`.
function limitsOf(model) {
  const sensitivity = element("sensitivity").value / 100;
  const scaled = (limit) => limit === null ? null : limit + (1 - 2 * sensitivity) * Math.abs(limit);
  return {
    score: scaled(model.threshold),
    peak: scaled(model.peak_threshold ?? model.pixel_threshold),
    regions: model.regions.map(({ threshold }) => scaled(threshold)),
  };
}

function isFlagged(prediction) {
  const { model, anomaly_score: score, peak, region_scores: ofRegions = [] } = prediction;
  if (isCalibrated() || model.threshold === null || prediction.product_index < 0) return prediction.is_anomalous;
  const limits = limitsOf(model);
  const byScore = model.decision !== "pixels" && score >= limits.score;
  const byPixels = model.decision !== "score" && peak >= limits.peak;
  return byScore || byPixels || limits.regions.some((limit, index) => ofRegions[index] >= limit);
}

function showCounts() {
  const model = chosenModel();
  const scored = entries.filter(isCurrent);
  element("limits").hidden = !scored.length || !model || model.threshold === null;
  if (element("limits").hidden) return;
  const { score: limit } = limitsOf(model);
  const flagged = scored.filter(({ prediction }) => isFlagged(prediction));
  const before = scored.filter(({ prediction }) => prediction.is_anomalous);
  const percent = `${element("sensitivity").value} %`;
  const isOne = !model.products.length; // Else each product has its own.
  const shown = isOne ? `${percent}, ${isCalibrated() ? "calibrated threshold" : "threshold"} ${format(limit)}` : percent;
  element("sensitivity-value").value = shown;
  element("sensitivity").setAttribute("aria-valuetext", shown);
  element("calibrated").disabled = isCalibrated();
  element("counts").textContent = `${flagged.length} of ${scored.length} images flagged`
    + (isCalibrated() ? ", as calibrated." : `, ${before.length} at the calibrated threshold.`);
  // A false alarm is left while it is flagged, a missed defect while it is not.
  const left = [["false_alarm", true, "false alarms"], ["missed", false, "missed defects"]].map(([mark, flag, noun]) => {
    const marked = scored.filter((entry) => entry.mark === mark);
    const count = marked.filter((entry) => flagged.includes(entry) === flag).length;
    return marked.length ? `${count} of ${marked.length} ${noun}` : "";
  }).filter(Boolean);
  element("marked").hidden = !left.length;
  element("marked").textContent = `Of what you marked, ${left.join(" and ")} would be left.`;
  element("keep").hidden = isCalibrated();
  const isByScore = isOne && model.decision === "score" && !model.regions.length;
  element("keep").textContent = `Nothing has changed on the server. Requests take it as sensitivity=${element("sensitivity").value / 100}`
    + (isByScore ? `; to keep it: keras-sspcab calibrate RUN --threshold ${limit.toFixed(3)}.` : ".");
}

function showLimits() {
  showCounts();
  for (const entry of entries) if (isCurrent(entry)) showState(entry);
  if (selected && !element("result").hidden) showVerdict(selected.prediction);
}

function showWaiting({ button, file }) {
  button.classList.remove("failed", "anomalous", "normal");
  button.lastChild.textContent = "…";
  button.setAttribute("aria-label", `${file.name}: not scored yet`);
}

function showState({ button, file, error, prediction }) {
  const flag = error ? "failed" : isFlagged(prediction) ? "anomalous" : "normal";
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
  element("name").textContent = file.name;
  element("size").textContent = "";
  element("image").alt = `The image ${file.name}`;
  element("image").src = url;
  showVerdict(prediction);
  drawHeat(prediction);
}

function showVerdict(prediction) {
  const { model, anomaly_score: value } = prediction;
  const isAnomalous = isFlagged(prediction);
  const limits = limitsOf(model);
  element("verdict").className = `tile ${isAnomalous ? "anomalous" : "normal"}`;
  element("gauge").className = `gauge ${isAnomalous ? "anomalous" : "normal"}`;
  element("flag").textContent = isAnomalous ? "Anomalous" : "Normal";
  const isUnknown = prediction.product_index < 0;
  const product = isUnknown ? "none of the products, " : model.product ? `${model.product}, ` : "";
  element("by").textContent = `${product}says ${model.name}, version ${model.version}`;
  const rule = isCalibrated() ? `anomalous ${model.rule}` : `at a sensitivity of ${element("sensitivity").value} %`;
  element("rule").textContent = [conflict(prediction, limits), rule].filter(Boolean).join("; ");
  showMark(selected);
  element("score").textContent = format(value);
  const hasThreshold = model.threshold > 0;
  element("gauge").hidden = !hasThreshold;
  element("threshold").textContent = limits.score === null ? "–" : format(limits.score);
  if (hasThreshold) {
    const share = Math.min(Math.max(value / (2 * model.threshold), 0), 1);
    root.style.setProperty("--score", `${100 * share}%`);
    root.style.setProperty("--limit", `${50 * limits.score / model.threshold}%`);
  }
  showRegions(prediction, limits);
}

function showRegions({ model, region_scores: scores }, limits) {
  element("regions").hidden = !scores || !model.regions.length;
  if (element("regions").hidden) return;
  element("region-rows").replaceChildren(...model.regions.map(({ name }, index) => {
    const row = document.createElement("tr");
    const isAnomalous = scores[index] >= limits.regions[index];
    const cells = [name, format(scores[index]), format(limits.regions[index])].map((text, column) =>
      Object.assign(document.createElement(column ? "td" : "th"), { textContent: text, className: column ? "number" : "" }));
    cells[0].scope = "row";
    cells[1].classList.toggle("anomalous", isAnomalous);
    if (isAnomalous) cells[1].append(Object.assign(document.createElement("span"), { className: "hidden", textContent: " anomalous" }));
    row.append(...cells);
    return row;
  }));
}

const MARKS = { false_alarm: "False alarm", missed: "Missed defect" };

function showMark({ prediction, mark }) {
  const shown = mark || (isFlagged(prediction) ? "false_alarm" : "missed");
  element("wrong").hidden = !canMark;
  element("wrong").textContent = mark ? `Kept as ${MARKS[mark].toLowerCase()}` : `${MARKS[shown]}?`;
  element("wrong").title = mark ? "Take it back" : "Keep the image, to learn from it";
  element("wrong").setAttribute("aria-pressed", Boolean(mark));
}

async function toggleMark() {
  const entry = selected;
  const { model, anomaly_score: score } = entry.prediction;
  const mark = entry.mark ? "none" : isFlagged(entry.prediction) ? "false_alarm" : "missed";
  const query = { mark, name: entry.file.name, model: model.name, version: model.version, score };
  if (model.threshold !== null) query.threshold = limitsOf(model).score;
  element("wrong").disabled = true; // A second click would send the same again.
  try {
    const kept = await send("feedback", query, entry.file);
    entry.mark = mark === "none" ? undefined : mark;
    say(`Kept so far: ${kept.false_alarms} false alarms, ${kept.missed} missed defects.`);
  } catch (error) {
    say(error.message, true);
  }
  element("wrong").disabled = false;
  if (entry === selected) showMark(entry);
  showCounts();
}

// As `Calibration.describe_conflict`.
function conflict({ anomaly_score: score, peak }, limits) {
  if (limits.score === null || limits.peak === null) return "";
  const byScore = score >= limits.score;
  const byPixels = peak >= limits.peak;
  if (byScore === byPixels) return "";
  return byScore ? "image score above its threshold, pixels below" : "pixels above their threshold, image score below";
}

// As `Preprocessing.restore`, with nothing where the model saw nothing.
function restore(map, fit, height, width) {
  const rows = map.length;
  const columns = map[0].length;
  const inside = (room, ratio) => [0, 1].map((side) => Math.min(
    room[side], Math.max(1, Math.floor(room[1 - side] * ratio[side] / ratio[1 - side] + 0.5))));
  if (!height || (fit !== "pad" && fit !== "crop")) return map;
  const isPadded = fit === "pad";
  const seen = isPadded ? inside([rows, columns], [height, width]) : inside([height, width], [rows, columns]);
  const size = isPadded ? seen
    : [Math.max(rows, Math.round(rows * height / seen[0])), Math.max(columns, Math.round(columns * width / seen[1]))];
  const top = Math.floor(Math.abs(rows - size[0]) / 2) * (isPadded ? 1 : -1);
  const left = Math.floor(Math.abs(columns - size[1]) / 2) * (isPadded ? 1 : -1);
  return Array.from({ length: size[0] }, (_, row) => Array.from(
    { length: size[1] }, (_, column) => map[row + top]?.[column + left] ?? -Infinity));
}

function drawHeat(prediction) {
  const { model } = prediction;
  const threshold = model.pixel_threshold;
  const { naturalHeight, naturalWidth } = element("image");
  const fitted = (values) => restore(values, model.fit, naturalHeight, naturalWidth);
  const map = fitted(prediction.anomaly_map);
  element("outline").hidden = !model.has_regions;
  if (model.has_regions) drawOutline(fitted(labelsOf(prediction)));
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

// The packed labels of `Regions.to_dict`, as rows.
async function unpack({ image_size: [height, width], labels }) {
  const packed = new Blob([Uint8Array.from(atob(labels), (character) => character.charCodeAt(0))]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"));
  const flat = new Uint8Array(await new Response(stream).arrayBuffer());
  return Array.from({ length: height }, (_, row) => flat.subarray(row * width, (row + 1) * width));
}

// Where parts are aligned, regions lie elsewhere in each image; outside of them
// a map is at its lowest value.
function labelsOf({ model, anomaly_map: map }) {
  if (model.labels) return model.labels;
  const lowest = map.reduce((least, row) => Math.min(least, ...row), Infinity);
  return map.map((row) => row.map((value) => Number(value > lowest)));
}

function drawOutline(labels) {
  const canvas = element("outline");
  canvas.height = labels.length;
  canvas.width = labels[0].length;
  const context = canvas.getContext("2d");
  context.fillStyle = "#966eff"; // That of the report.
  const width = Math.max(1, Math.round(Math.max(canvas.height, canvas.width) / 300));
  const neighbors = [[-1, 0], [1, 0], [0, -1], [0, 1]];
  labels.forEach((row, y) => row.forEach((label, x) => {
    const isEdge = label > 0 && neighbors.some(([dy, dx]) => (labels[y + dy]?.[x + dx] ?? 0) !== label);
    if (isEdge) context.fillRect(x, y, width, width);
  }));
}

function drawScale() {
  const context = element("scale").getContext("2d");
  const pixels = context.createImageData(colors.length, 1);
  colors.forEach((color, index) => pixels.data.set(color, 4 * index));
  context.putImageData(pixels, 0, 0);
}

element("image").addEventListener("load", ({ target }) => {
  const { naturalWidth: width, naturalHeight: height } = target;
  root.style.setProperty("--ratio", width / height);
  element("size").textContent = `${width} × ${height} pixels`;
  // Where the map lies follows from the size.
  if (selected?.prediction) drawHeat(selected.prediction);
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
element("model").addEventListener("change", () => {
  showVersions();
  showDrift();
  showCounts();
  scoreAgain();
});
element("version").addEventListener("change", showVersionButton);
element("serve-version").addEventListener("click", serveVersion);
element("wrong").addEventListener("click", toggleMark);
element("sensitivity").addEventListener("input", showLimits);
element("calibrated").addEventListener("click", () => {
  element("sensitivity").value = 50;
  showLimits();
  element("sensitivity").focus();
});
setInterval(watchDrift, 1000 * DRIFT_SECONDS);
start();
