"use strict";
// Decisions about pictures: by buttons and keys, remembered in this browser, saved as decisions.csv.
const page = document.querySelector("[data-fingerprint]");
const key = "hangtag audit " + page.dataset.fingerprint;
const classes = new Set([...document.querySelectorAll("#classes option")].map((option) => option.value));
const cards = [...document.querySelectorAll(".decide")];
const names = new Set(cards.map((card) => card.dataset.name));
const decisions = new Map();
const undoable = [];

function remember() {
  try {
    localStorage.setItem(key, JSON.stringify([...decisions]));
  } catch {
    page.dataset.forgets = "";
  }
}

function recall() {
  try {
    for (const [name, decision] of JSON.parse(localStorage.getItem(key) ?? "[]"))
      if (names.has(name) && known(decision)) decisions.set(name, decision);
  } catch {
    page.dataset.forgets = "";
  }
}

function known(decision) {
  return ["keep", "drop"].includes(decision) || (/^relabel: /.test(decision) && classes.has(decision.slice(9)));
}

function show() {
  for (const card of cards) {
    const decision = decisions.get(card.dataset.name) ?? "";
    card.dataset.decision = decision.replace(/:.*/s, "");
    card.querySelector("output").value = decision ? "Decision: " + decision : "";
    for (const button of card.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === decision));
  }
  document.getElementById("progress").textContent = `${decisions.size} of ${names.size} decided`;
  document.querySelector("progress").value = decisions.size;
  document.getElementById("undo").disabled = undoable.length === 0;
}

function decide(card, decision) {
  const name = card.dataset.name;
  undoable.push([name, decisions.get(name), card]);
  decisions.set(name, decision);
  remember();
  show();
}

function undo() {
  const last = undoable.pop();
  if (!last) return;
  const [name, before, card] = last;
  if (before === undefined) decisions.delete(name);
  else decisions.set(name, before);
  remember();
  show();
  card.focus();
}

function move(card, step) {
  let place = cards.indexOf(card) + step;
  if (card === null) place = step > 0 ? 0 : cards.length - 1;
  cards[Math.min(Math.max(place, 0), cards.length - 1)]?.focus();
}

function next(card) {
  const after = cards.slice(cards.indexOf(card) + 1).find((each) => !decisions.has(each.dataset.name));
  (after ?? card).focus();
}

function cell(text) {
  const harmless = /^'*[=+\-@\t\r]/.test(text) ? "'" + text : text; // a spreadsheet must not run it
  return '"' + harmless.replaceAll('"', '""') + '"';
}

function save() {
  const rows = [...decisions].map(([name, decision]) => cell(name) + "," + cell(decision));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["name,decision\n", ...rows.map((row) => row + "\n")], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function relabel(card) {
  const button = card.querySelector('button[value^="relabel: "]');
  if (!button) return card.querySelector("input").focus();
  decide(card, button.value);
  next(card);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "undo") undo();
  else if (button.id === "save") save();
  else decide(button.closest(".decide"), button.value);
});

document.addEventListener("change", (event) => {
  const typed = event.target.value.trim();
  const valid = classes.has(typed);
  event.target.setCustomValidity(valid || !typed ? "" : "This is not a class of the data.");
  event.target.reportValidity();
  if (!valid) return;
  const card = event.target.closest(".decide");
  event.target.value = "";
  decide(card, "relabel: " + typed);
  next(card);
});

document.addEventListener("keydown", (event) => {
  const letter = event.key.toLowerCase();
  if (event.target.matches("input")) {
    if (letter === "escape") event.target.closest(".decide").focus();
    return;
  }
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const card = event.target.closest(".decide");
  if (letter === "u") undo();
  else if (letter === "s") save();
  else if (letter === "n" || letter === "arrowdown" || letter === "arrowright") move(card, 1);
  else if (letter === "p" || letter === "arrowup" || letter === "arrowleft") move(card, -1);
  else if (!card) return;
  else if (letter === "r") relabel(card);
  else if (letter === "k" || letter === "d") {
    decide(card, letter === "k" ? "keep" : "drop");
    next(card);
  } else return;
  event.preventDefault();
});

recall();
show();
