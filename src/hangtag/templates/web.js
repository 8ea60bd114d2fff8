"use strict";
// Answers for pictures in the browser: decodes as hangtag/pictures.py, decides as hangtag/model/guarantees.py.
const $ = (id) => document.getElementById(id);
const answers = []; // newest last; `window.hangtag.answers` for programs
let ort, session, about, stream = null, queue = Promise.resolve(), waiting = 0, labelled = 0, seen = 0;
window.hangtag = { answers };

async function unpack(id) {
  const text = $(id).textContent, binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  $(id).remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function start() {
  about = JSON.parse(new TextDecoder().decode(await unpack("about")));
  const source = URL.createObjectURL(new Blob([await unpack("bundle")], { type: "text/javascript" }));
  ort = await import(source);
  URL.revokeObjectURL(source);
  ort.env.wasm.numThreads = 1; // more need headers that a file does not have
  ort.env.wasm.wasmBinary = await unpack("wasm");
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(new Uint8Array(await unpack("model")), { executionProviders: ["wasm"] });
  $("choose").disabled = $("shoot").disabled = false;
  say("Ready.");
}

function say(text) { $("status").textContent = text; }

// --- pixels ----------------------------------------------------------------------------------------------------------

// JPEGs are decoded at a half, a quarter or an eighth of their size if enough is left; see _reduce in pictures.py.
function reduction(isJpeg, width, height) {
  const { fit, width: w, height: h } = about.image, least = Math.max(512, 4 * Math.max(w, h));
  const frame = (x, y) => {
    if (fit !== "pad") return "";
    const ratio = Math.min(Math.fround(h / y), Math.fround(w / x));
    return [y, x].map((side) => Math.max(1, Math.round(side * ratio))).join();
  };
  const fits = (by) => Math.min(width, height) >= by * least && frame(Math.ceil(width / by), Math.ceil(height / by)) === frame(width, height);
  return isJpeg ? [8, 4, 2].find(fits) || 1 : 1;
}

// uint8 pixels, grey or RGB, transparency filled with the model's background; strips of rows keep the canvas small.
async function decode(blob) {
  const head = new Uint8Array(await blob.slice(0, 3).arrayBuffer());
  const isJpeg = head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff;
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap, { channels, background } = about.image;
  if (width * height > about.most_pixels) throw new Error("the picture has too many pixels");
  const by = reduction(isJpeg, width, height), w = Math.ceil(width / by), h = Math.ceil(height / by);
  const pixels = new Uint8Array(w * h * channels);
  const rows = Math.max(1, Math.floor(2e6 / width / by)) * by;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(rows, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = `rgb(${background} ${background} ${background})`;
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const strip = context.getImageData(0, 0, width, count).data;
    for (let y = 0; y < count; y += by) {
      for (let x = 0; x < width; x += by) {
        let red = 0, green = 0, blue = 0, area = 0;
        for (let dy = 0; dy < by && y + dy < count; dy++) {
          for (let dx = 0; dx < by && x + dx < width; dx++, area++) {
            const at = 4 * ((y + dy) * width + x + dx);
            red += strip[at]; green += strip[at + 1]; blue += strip[at + 2];
          }
        }
        if (by > 1) { red = Math.round(red / area); green = Math.round(green / area); blue = Math.round(blue / area); }
        const place = ((top + y) / by) * w + x / by;
        if (channels === 1) pixels[place] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16; // as Pillow
        else { pixels[3 * place] = red; pixels[3 * place + 1] = green; pixels[3 * place + 2] = blue; }
      }
    }
  }
  return { pixels, shape: channels === 1 ? [1, h, w] : [1, h, w, 3], bitmap };
}

// --- answers ---------------------------------------------------------------------------------------------------------

async function answerFor(blob) {
  const { pixels, shape, bitmap } = await decode(blob);
  const images = new ort.Tensor("uint8", pixels, shape);
  const results = await session.run({ [about.input]: images }, [...about.outputs, about.pixels]);
  const rows = Object.fromEntries(about.outputs.map((name) => [name, results[name].data]));
  return { ...decide(rows, coverage()), rows, bitmap, seen: results[about.pixels].data };
}

function coverage() { return $("coverage") ? Number($("coverage").value) : 0.95; }

// Labels, sets and warnings from the outputs. Thresholds of float32 values are rounded to float32, as NumPy does.
function decide(rows, level) {
  const chances = rows[about.output], count = chances.length;
  const order = [...chances.keys()].sort((a, b) => chances[b] - chances[a] || a - b);
  const score = about.has_ood_score ? rows.ood_score[0] : null;
  const isOod = score === null ? null : score > Math.fround(about.most_familiar);
  const inSet = about.sets && setOf(rows, level, count);
  if (inSet) inSet[order[0]] = true;
  const confidence = chances[order[0]];
  let sure = null;
  if (about.held_out) {
    const limit = about.confidence === null || about.confidence === undefined ? Infinity : Math.fround(about.confidence);
    if (!about.better_than_chance) sure = false;
    else if (inSet) sure = confidence >= limit && confidence >= about.least_sure && inSet.filter(Boolean).length === 1;
  }
  const labels = inSet && !isOod ? order.filter((place) => inSet[place]).map((place) => about.class_names[place]) : null;
  return {
    label: about.class_names[order[0]], probability: confidence,
    top: order.slice(0, 5).map((place) => ({ label: about.class_names[place], probability: chances[place] })),
    prediction_set: labels, coverage: labels && level, ood_score: score, is_ood: isOod, sure: isOod ? false : sure, model: about.fingerprint,
  };
}

const nonconformity = (share) => -Math.log(Math.max(share, 1.1754943508222875e-38));

function setOf(rows, level, count) {
  const { levels, thresholds, fold_scores: folds, images, rows: name } = about.sets;
  const limit = thresholds[levels.findIndex((each) => each >= level - 1e-9)];
  if (limit === null || limit === undefined) return new Array(count).fill(true);
  if (!folds.length || !rows.fold_uncalibrated) return Array.from(rows[name], (share) => nonconformity(share) <= limit);
  return Array.from({ length: count }, (_, place) => {
    let above = 0;
    folds.forEach((ranked, fold) => {
      const score = nonconformity(rows.fold_uncalibrated[fold * count + place]);
      let low = 0, high = ranked.length;
      while (low < high) { const middle = (low + high) >> 1; if (ranked[middle] < score) low = middle + 1; else high = middle; }
      above += ranked.length - low;
    });
    return 1 + above > (1 - level) * (1 + images) + 1e-9;
  });
}

// --- the page --------------------------------------------------------------------------------------------------------

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const percent = (share) => {
  const value = 100 * share;
  return value >= 99.95 ? (share < 1 ? ">99.9%" : "100%") : value < 0.05 ? "<0.1%" : `${value.toFixed(value < 10 || value > 99 ? 1 : 0)}%`;
};

function picture(bitmap) {
  const scale = Math.min(1, 480 / Math.max(bitmap.width, bitmap.height)), canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (Math.max(canvas.width, canvas.height) <= 96) canvas.className = "pixels";
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

function asSeen(values) {
  const { width, height, channels } = about.image, data = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    for (let channel = 0; channel < 3; channel++) data.data[4 * at + channel] = Math.round(255 * values[(channels === 1 ? 0 : channel) * width * height + at]);
    data.data[4 * at + 3] = 255;
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.className = Math.max(width, height) <= 96 ? "pixels" : "";
  canvas.getContext("2d").putImageData(data, 0, 0);
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

function card(answer) {
  const box = element("article", undefined, "answer"), left = element("div"), right = element("div", undefined, "said-of-it");
  const figure = element("figure"), seen = element("figure", undefined, "seen");
  if (answer.bitmap) {
    figure.append(picture(answer.bitmap), element("figcaption", answer.name));
    seen.append(asSeen(answer.seen), element("figcaption", "as the model sees it"));
    left.append(figure, seen);
    answer.bitmap.close();
    delete answer.bitmap;
    delete answer.seen;
  } else left.append(element("p", answer.name, "note"));
  box.append(left, right);
  answer.show = () => {
    right.replaceChildren();
    if (answer.error) return right.append(element("p", "No answer", "label wrong"), element("p", answer.error));
    right.append(element("p", answer.label, "label"));
    const verdict = answer.is_ood ? ["unfamiliar: unlike the training images", "strange"] : answer.sure === null ? null : answer.sure ? ["sure", "right"] : ["not sure", "unsure"];
    if (verdict) right.append(element("p", verdict[0], `verdict ${verdict[1]}`));
    const bars = element("div", undefined, "bars");
    for (const { label, probability } of answer.top) {
      const bar = element("i"), track = element("div");
      bar.style.width = `${100 * probability}%`;
      track.append(bar);
      bars.append(element("span", label), track, element("span", percent(probability)));
    }
    right.append(bars);
    if (answer.prediction_set) {
      const some = answer.prediction_set.slice(0, 12).join(", "), more = answer.prediction_set.length - 12;
      right.append(element("p", `With ${+(100 * answer.coverage).toFixed(3)}% coverage: ${some}${more > 0 ? ` and ${more} more` : ""}`));
      const why = about.why_not[String(answer.coverage)];
      if (why) right.append(element("p", `Note: ${why}`, "note"));
    }
    return undefined;
  };
  answer.show();
  $("answers").prepend(box);
  $("clear").hidden = false;
}

function add(blobs) {
  for (const blob of blobs) {
    waiting += 1;
    queue = queue.then(async () => {
      say(waiting > 1 ? `${waiting} pictures to go ...` : "Looking ...");
      let answer;
      try { answer = await answerFor(blob); } catch (error) {
        answer = { label: null, error: error instanceof DOMException ? "This browser cannot read the file as a picture." : `The picture cannot be classified: ${error.message || error}.` };
      }
      answer.name = blob.name || "picture";
      answers.push(answer);
      card(answer);
      waiting -= 1;
      if (!answer.error) labelled += 1;
      seen += 1;
      if (!waiting) {
        say(seen > 1 ? `${labelled} of ${seen} pictures have an answer.` : answer.error ? `${answer.name}: no answer.` : `${answer.name}: ${answer.label}, ${percent(answer.probability)}.`);
        labelled = seen = 0;
      }
      await new Promise((later) => setTimeout(later));
    });
  }
}

async function openCamera() {
  if (matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices) return $("photo").click();
  try { stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }); } catch (error) {
    return say(`The camera cannot be used: ${error.message || error.name}.`);
  }
  $("video").srcObject = stream;
  $("camera").hidden = false;
  await $("video").play();
  return $("take").focus();
}

function closeCamera() {
  if (stream) stream.getTracks().forEach((track) => track.stop());
  stream = null;
  $("camera").hidden = true;
  $("shoot").focus();
}

function take() {
  const canvas = document.createElement("canvas"), video = $("video");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { if (blob) add([new File([blob], "photo")]); }, "image/png");
}

$("choose").addEventListener("click", () => $("files").click());
for (const id of ["files", "photo"]) $(id).addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });
$("shoot").addEventListener("click", () => (stream ? closeCamera() : openCamera()));
$("take").addEventListener("click", take);
$("close").addEventListener("click", closeCamera);
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && stream) closeCamera(); });
$("clear").addEventListener("click", () => { answers.length = 0; $("answers").replaceChildren(); $("clear").hidden = true; say("Ready."); $("choose").focus(); });
if ($("coverage")) $("coverage").addEventListener("change", () => answers.forEach((answer) => { if (answer.rows) { Object.assign(answer, decide(answer.rows, coverage())); answer.show(); } }));
document.addEventListener("paste", (event) => { if (session) add([...event.clipboardData.files]); });
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => { if (session) add([...event.dataTransfer.files]); });
start().catch((error) => say(`The model cannot be started in this browser: ${error.message || error}. A current Chrome, Edge, Firefox or Safari is needed.`));
