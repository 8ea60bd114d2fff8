"use strict";
// Shows the pictures of the chosen label, and all or only those that are not sure.
const label = document.getElementById("label");
const unsure = document.getElementById("unsure");
const shown = document.getElementById("shown");
const cards = [...document.querySelectorAll("#cards figure")];
function choose() {
  let count = 0;
  for (const card of cards) {
    const fits = (label.value === "" || card.dataset.label === label.value.slice(1)) && !(unsure.checked && card.dataset.sure === "yes");
    card.hidden = !fits;
    count += fits;
  }
  shown.textContent = count + (count === 1 ? " image" : " images");
}
label.addEventListener("change", choose);
unsure.addEventListener("change", choose);
choose();
