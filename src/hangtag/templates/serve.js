"use strict";
// Every word from the server or from a file's name is inserted as text, never as markup.

const at = (id) => document.getElementById(id);
const KEPT = "hangtag-token";
const LABELS = 8; // of a prediction set, in a sentence
const MOST = 16; // pictures of a request, so that the first answers come soon
let limits = { pictures: 1, bytes: Infinity };
let waiting = 0;

function make(tag, name, text) {
  const found = document.createElement(tag);
  if (name) found.className = name;
  if (text !== undefined) found.textContent = text;
  return found;
}

function token(value) {
  try {
    if (value !== undefined) sessionStorage.setItem(KEPT, value);
    token.kept = value ?? sessionStorage.getItem(KEPT) ?? token.kept;
  } catch {
    token.kept = value ?? token.kept; // storage is blocked: the token stays in memory
  }
  return token.kept;
}

class Refused extends Error {
  constructor(status, said) {
    super(said.error || `the server answered with status ${status}`);
    this.status = status;
    this.hint = said.hint || "";
  }
}

async function call(path, options = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Refused(0, { error: "the server cannot be reached", hint: "check that it is running, and try again" });
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, said);
  return said;
}

const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : text);
const percent = (share) => (share > 0.9995 && share < 1 ? "> 99.9%" : share < 0.001 && share > 0 ? "< 0.1%" : `${(100 * share).toFixed(1)}%`);
const round = (share) => `${Math.round(1000 * share) / 10}%`;

function listed(labels) {
  const shown = labels.slice(0, LABELS);
  const more = labels.length - shown.length;
  if (more) shown.push(`${more} more`);
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} or ${shown.at(-1)}`;
}

function complain(error) {
  if (error instanceof Refused && error.status === 401) return askForToken();
  at("problem").textContent = `${sentence(error.message)}.${error.hint ? ` ${sentence(error.hint)}.` : ""}`;
  at("problem").hidden = false;
}

function askForToken() {
  const wrong = Boolean(token());
  at("work").hidden = true;
  at("sign-in").hidden = false;
  at("problem").hidden = !wrong;
  at("problem").textContent = wrong ? "The server does not accept this token." : "";
  at("token").value = "";
  at("token").focus();
}

async function begin() {
  try {
    const models = await call("models");
    at("models").replaceChildren(...models.map(({ name }) => new Option(name, name)));
    at("which").hidden = models.length < 2;
    await describe();
    at("sign-in").hidden = at("problem").hidden = true;
    at("work").hidden = false;
  } catch (error) {
    complain(error);
  }
}

async function describe() {
  const model = await call(`model?model=${encodeURIComponent(at("models").value)}`);
  const { classes, score } = model;
  const some = classes.slice(0, 12).join(", ") + (classes.length > 12 ? ", ..." : "");
  const judged = score?.part === "cross-validation" ? "by cross-validation on" : `on ${score?.part}`;
  const tested = score ? ` Accuracy: ${round(score.accuracy)} (95% interval ${score.accuracy_interval.map(round).join(" to ")}), measured ${judged} ${score.images.toLocaleString("en")} images.` : "";
  limits = model.limits;
  at("model").textContent = `hangtag · ${model.name}`;
  at("about").textContent = `The model knows ${classes.length.toLocaleString("en")} classes: ${some}.${tested}`;
  at("limits").textContent = `Up to ${limits.pictures} pictures at once, ${Math.floor(limits.bytes / 1e6)} MB in all.`;
}

function verdict(answer) {
  if (answer.is_ood) {
    return ["unsure", `Not sure: the picture is unlike the training images (more unusual than ${round(answer.ood_score)} of them).`];
  }
  if (answer.sure === null) return ["", "This model cannot tell whether it is sure."];
  return answer.sure ? ["sure", "Sure"] : ["unsure", "Not sure"];
}

function setInWords(answer) {
  const labels = answer.prediction_set;
  if (!labels || answer.sure) return "";
  const promise = answer.coverage === null ? "" : ` Such lists contain the true label for ${round(answer.coverage)} of pictures.`;
  return labels.length ? `It may be ${listed(labels)}.${promise}` : "No label is likely enough.";
}

function bar({ label, probability }) {
  const row = make("li");
  const track = make("span", "track");
  const length = make("i");
  track.setAttribute("aria-hidden", "true");
  length.style.width = `${100 * probability}%`;
  track.append(length);
  row.append(make("span", "", label), track, make("b", "", percent(probability)));
  return row;
}

function drawing(source, caption) {
  const figure = make("figure");
  const image = make("img");
  image.src = source;
  image.alt = caption;
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 100));
  figure.append(image, make("figcaption", "", caption));
  return figure;
}

function newCard(file) {
  const card = at("card").content.firstElementChild.cloneNode(true);
  const image = card.querySelector("img");
  const shown = URL.createObjectURL(file);
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 100));
  image.addEventListener("error", () => image.remove()); // a format that only the server reads
  image.src = shown;
  image.alt = `The picture ${file.name}`;
  card.file = file;
  card.release = () => URL.revokeObjectURL(shown);
  card.querySelector("figcaption").textContent = file.name;
  card.querySelector("h2").textContent = "Looking ...";
  return card;
}

function say(card, kind, text) {
  const line = card.querySelector(".verdict");
  line.className = `verdict ${kind}`;
  line.textContent = text;
}

function fail(card, error, hint) {
  card.querySelector("h2").textContent = "No answer";
  const name = `${card.querySelector("figcaption").textContent}: `;
  const reason = error.startsWith(name) ? error.slice(name.length) : error;
  say(card, "failed", `${sentence(reason)}.`);
  card.querySelector(".set").textContent = hint ? `${sentence(hint)}.` : "";
}

function fill(card, answer) {
  if (answer.error) return fail(card, answer.error, answer.hint);
  card.querySelector("h2").textContent = answer.label;
  say(card, ...verdict(answer));
  card.querySelector(".bars").replaceChildren(...answer.top.map(bar));
  card.querySelector(".set").textContent = setInWords(answer);
  const repairs = answer.repairs.map(({ name, reason }) => `${sentence(name)}: ${reason}.`);
  const notes = answer.warnings.filter((note) => !note.startsWith("resized from")).map((note) => `${sentence(note)}.`);
  card.querySelector(".notes").replaceChildren(...[...repairs, ...notes].map((note) => make("li", "", note)));
  if (answer.doctor) {
    const beside = make("div", "beside");
    beside.append(drawing(answer.doctor.before, "As it was sent"), drawing(answer.doctor.after, "What the model saw"));
    card.querySelector(".repaired").replaceChildren(make("h3", "", "Repaired before the model saw it"), beside);
  }
  card.querySelector(".repaired").hidden = !answer.doctor;
  card.querySelector(".evidence").hidden = !answer.why;
  if (answer.why) explain(card.querySelector(".evidence"), answer);
}

function explain(place, answer) {
  const caption = make("figcaption");
  caption.append(make("i", "swatch"), ` speaks for ${answer.label}, `, make("i", "swatch against"), " speaks against it");
  const figure = drawing(answer.why.heat_map, "");
  figure.querySelector("img").alt = `Where the evidence for ${answer.label} is`;
  figure.querySelector("figcaption").replaceWith(caption);
  place.replaceChildren(make("h3", "", "Evidence"), figure);
}

function inParts(cards) {
  const parts = [];
  let bytes = 0;
  for (const card of cards) {
    const { size } = card.file;
    if (!parts.length || parts.at(-1).length >= Math.min(limits.pictures, MOST) || bytes + size > 0.9 * limits.bytes) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1).push(card);
    bytes += size + 1000;
  }
  return parts;
}

function classify(given) {
  const files = [...given];
  if (!files.length || at("work").hidden) return;
  at("clear").hidden = false;
  const cards = files.map(newCard);
  at("answers").prepend(...cards);
  ask(cards, true);
}

async function ask(cards, moveFocus) {
  at("problem").hidden = true;
  waiting += cards.length;
  report();
  const wish = new URLSearchParams({ model: at("models").value, top: "5" });
  wish.set(at("as-is").checked ? "as_is" : "doctor", "1");
  if (at("why").checked) wish.set("why", "1");
  for (const part of inParts(cards)) {
    const body = new FormData();
    for (const { file } of part) body.append("pictures", file, file.name);
    try {
      const found = await call(`predict?${wish}`, { method: "POST", body });
      part.forEach((card, place) => fill(card, found[place]));
    } catch (error) {
      for (const card of part) fill(card, { error: error.message, hint: error.hint || "" });
      if (error.status === 401) askForToken();
    }
    waiting -= part.length;
    report(cards);
  }
  if (moveFocus && !waiting && cards[0].isConnected && at("sign-in").hidden) {
    cards[0].focus({ preventScroll: true });
    cards[0].scrollIntoView({ block: "nearest" });
  }
}

function report(cards) {
  let text = "";
  if (waiting) text = `Looking at ${waiting} ${waiting === 1 ? "picture" : "pictures"} ...`;
  else if (cards?.length === 1) {
    text = `${cards[0].querySelector("h2").textContent}. ${cards[0].querySelector(".verdict").textContent}`;
  } else if (cards) {
    const answered = cards.filter((card) => !card.querySelector(".failed")).length;
    text = `${answered} of ${cards.length} pictures have an answer.`;
  }
  at("status").textContent = text;
}

for (const id of ["choose", "photograph"]) {
  at(id).addEventListener("change", (event) => {
    classify(event.target.files);
    event.target.value = "";
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
for (const end of ["dragleave", "drop"]) document.addEventListener(end, () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  classify(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) classify(event.clipboardData.files);
});
at("models").addEventListener("change", () => describe().catch(complain));
at("why").addEventListener("change", () => {
  const answered = [...at("answers").children].filter((card) => card.querySelector(".bars").children.length);
  for (const card of answered) card.querySelector(".evidence").hidden = !at("why").checked;
  const without = answered.filter((card) => !card.querySelector(".evidence").children.length);
  if (at("why").checked && without.length) ask(without, false);
});
at("clear").addEventListener("click", () => {
  for (const card of at("answers").children) card.release();
  at("answers").replaceChildren();
  at("clear").hidden = true;
  report();
  at("choose").focus();
});
at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token(at("token").value);
  begin();
});
begin();
