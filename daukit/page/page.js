"use strict";
// Without this script the page can be read as a whole; it adds sorting, a switch, a slider and files of figures.

for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  if (table.tBodies[0].rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, heads, column));
  });
}

function sort(table, heads, column) {
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const sign = descending ? -1 : 1;
  // What has no value stays last, whichever way the others go.
  rows.sort((a, b) => {
    const [x, y] = [key(a.cells[column]), key(b.cells[column])];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
  table.tBodies[0].append(...rows);
}

function key(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const words = cell.textContent.trim();
  return words === "–" ? null : words;
}

for (const group of document.querySelectorAll(".group")) {
  const fieldset = group.querySelector("fieldset.switch");
  if (fieldset) {
    const show = () => {
      const chosen = fieldset.querySelector("input:checked").value;
      for (const drawing of group.querySelectorAll("[data-variant]")) drawing.hidden = drawing.dataset.variant !== chosen;
    };
    fieldset.addEventListener("change", show);
    fieldset.hidden = false;
    group.classList.add("switched");
    show();
  }
  const slider = group.querySelector(".slider");
  if (slider) {
    const input = slider.querySelector("input");
    const positions = JSON.parse(slider.dataset.positions);
    const readings = JSON.parse(slider.dataset.readings);
    const figures = [...group.querySelectorAll("figure")];
    const slide = () => {
      const position = Number(input.value);
      slider.querySelector("output").textContent = positions[position];
      input.setAttribute("aria-valuetext", positions[position]);
      figures.forEach((figure, i) => {
        for (const old of figure.querySelectorAll("g.chosen")) old.classList.remove("chosen");
        for (const choice of figure.querySelectorAll(`g[id$="-choice-${position}"]`)) choice.classList.add("chosen");
        figure.querySelector(".reading").textContent = readings[position][i];
      });
    };
    input.addEventListener("input", slide);
    slider.hidden = false;
    group.classList.add("slides");
    slide();
  }
}

for (const link of document.querySelectorAll("a.packed")) {
  link.addEventListener("click", async (event) => {
    if (!window.DecompressionStream) return; // the packed file is good, too
    event.preventDefault();
    const bytes = Uint8Array.from(atob(link.href.slice(link.href.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    save(await new Response(unpacked).blob(), link.download.replace(/\.gz$/, ""));
  });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const button of document.querySelectorAll("button.save")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const drawings = [...button.closest("figure").querySelectorAll(".drawing:not([hidden]) svg")];
    drawings.forEach((drawing, i) => {
      const copy = drawing.cloneNode(true);
      copy.querySelectorAll("g").forEach((part, n) => {
        if (getComputedStyle(drawing.querySelectorAll("g")[n]).display === "none") part.classList.add("left-out");
      });
      copy.querySelectorAll(".left-out").forEach((part) => part.remove());
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      const [, , width, height] = copy.getAttribute("viewBox").split(" ");
      copy.setAttribute("width", `${width}pt`);
      copy.setAttribute("height", `${height}pt`);
      const blob = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
      save(blob, button.dataset.name + (drawings.length > 1 ? `-${i + 1}` : "") + ".svg");
    });
  });
}
