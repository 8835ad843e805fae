// Runs model.onnx, which lies beside this page, on images that are dropped.

ort.env.wasm.numThreads = 1; // more need headers that few servers send

// It would warn of inputs that may be left out.
const session = ort.InferenceSession.create("model.onnx", { logSeverityLevel: 3 });

// The axes of a model are (batch, height, width, channels); those that are
// open, which have names instead of numbers, stay as in the image.
async function detect(file) {
  const model = await session;
  const [, height, width, channels] = model.inputMetadata[0].shape;
  const image = await readImage(file, channels);
  const newHeight = height > 0 ? height : image.height;
  const newWidth = width > 0 ? width : image.width;
  let values = resizeAxis(image.values, image.height, image.width, channels, newWidth);
  values = resizeAxis(values, 1, image.height, newWidth * channels, newHeight);
  const input = new ort.Tensor("float32", values, [1, newHeight, newWidth, channels]);
  // Another threshold: { image: input, threshold: new ort.Tensor("float32", [4.2], [1]) }
  const outputs = await model.run({ image: input });
  return {
    score: outputs.anomaly_score.data[0],
    isAnomalous: Boolean(outputs.is_anomalous.data[0]),
    map: outputs.anomaly_map.data,
    height: newHeight,
    width: newWidth,
  };
}

// Returns the pixels from 0 to 1, and draws them.
async function readImage(file, channels) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const { height, width } = bitmap;
  const canvas = Object.assign(document.getElementById("photo"), { height, width });
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const values = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = pixels.subarray(4 * i, 4 * i + 3);
    if (channels === 1) {
      values[i] = Math.floor((299 * r + 587 * g + 114 * b + 500) / 1000) / 255;
    } else {
      values.set([r / 255, g / 255, b / 255], 3 * i);
    }
  }
  return { height, width, values };
}

// Resizes one axis as in training: bilinearly, with antialiasing. The values
// are `count` lines of `size` pixels of `step` values each.
function resizeAxis(values, count, size, step, newSize) {
  const scale = size / newSize;
  const radius = Math.max(scale, 1);
  const result = new Float32Array(count * newSize * step);
  for (let i = 0; i < newSize; i++) {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - radius));
    const weights = [];
    for (let j = first; j < Math.min(size, Math.ceil(center + radius)); j++) {
      weights.push(Math.max(0, 1 - Math.abs(j + 0.5 - center) / radius));
    }
    const total = weights.reduce((sum, weight) => sum + weight);
    for (let line = 0; line < count; line++) {
      for (let k = 0; k < step; k++) {
        let sum = 0;
        weights.forEach((weight, j) => {
          sum += weight * values[(line * size + first + j) * step + k];
        });
        result[(line * newSize + i) * step + k] = sum / total;
      }
    }
  }
  return result;
}

// Black is normal; white are five standard deviations, or the largest value.
function drawMap({ map, height, width }) {
  const canvas = Object.assign(document.getElementById("map"), { height, width });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const white = map.reduce((most, value) => Math.max(most, value), 5);
  map.forEach((value, i) => {
    const gray = (255 * value) / white; // clamped by the array
    picture.data.set([gray, gray, gray, 255], 4 * i);
  });
  context.putImageData(picture, 0, 0);
}

async function show(file) {
  const answer = document.getElementById("answer");
  answer.className = "";
  answer.textContent = "Looking…";
  try {
    const result = await detect(file);
    drawMap(result);
    answer.textContent = `Score ${result.score.toFixed(2)}: ${result.isAnomalous ? "anomalous" : "normal"}`;
    answer.className = result.isAnomalous ? "anomalous" : "normal";
    window.result = result; // to look at in the console
  } catch (error) {
    answer.textContent = `${file.name} cannot be looked at: ${error.message ?? error}`;
    answer.className = "error";
  }
}

const drop = document.getElementById("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.className = "over";
});
drop.addEventListener("dragleave", () => (drop.className = ""));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.className = "";
  if (event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
});
document.getElementById("file").addEventListener("change", (event) => {
  if (event.target.files.length) show(event.target.files[0]);
});
session.then(
  () => (document.getElementById("answer").textContent = "Ready."),
  (error) => (document.getElementById("answer").textContent = `model.onnx cannot be loaded: ${error.message ?? error}`),
);
