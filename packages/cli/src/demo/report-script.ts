/** The report's behaviour: details under the pointer, zoom, sorting and filtering. Plain JavaScript without network. */
export const SCRIPT = `
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const svg = document.getElementById("timeline");
const rows = [...document.querySelectorAll("#files tbody tr")];

function line(text, tag) {
  const element = document.createElement(tag || "div");
  element.textContent = text;
  return element;
}

function pick(file) {
  if (!svg) return;
  const same = svg.querySelectorAll('.bar[data-f="' + file + '"]');
  if (same.length === 0) return;
  svg.classList.add("picked");
  const ordered = [...same].sort((a, b) => data.bars[a.dataset.b].attempt - data.bars[b.dataset.b].attempt);
  const links = document.getElementById("links");
  ordered.forEach((bar, at) => {
    bar.classList.add("same");
    const before = ordered[at - 1];
    if (!before) return;
    const link = document.createElementNS(svg.namespaceURI, "line");
    const middle = (rect) => Number(rect.getAttribute("y")) + Number(rect.getAttribute("height")) / 2;
    link.setAttribute("x1", parseFloat(before.getAttribute("x")) + parseFloat(before.getAttribute("width")) + "%");
    link.setAttribute("y1", middle(before));
    link.setAttribute("x2", bar.getAttribute("x"));
    link.setAttribute("y2", middle(bar));
    links.append(link);
  });
}

function unpick() {
  if (!svg) return;
  svg.classList.remove("picked");
  svg.querySelectorAll(".same").forEach((bar) => bar.classList.remove("same"));
  document.getElementById("links").replaceChildren();
}

function place(event) {
  const gap = 14;
  const box = tip.getBoundingClientRect();
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, top) + "px";
}

if (svg) {
  svg.addEventListener("pointerover", (event) => {
    const index = event.target.dataset && event.target.dataset.b;
    if (index === undefined) return;
    const bar = data.bars[index];
    tip.replaceChildren(
      line(data.files[bar.f], "b"),
      line("Attempt " + bar.attempt + " (" + bar.type + ") on " + bar.worker),
      line("Began after " + bar.from + ", took " + bar.took),
      line(bar.outcome + (bar.reason ? ": " + bar.reason : "")),
    );
    tip.hidden = false;
    place(event);
    pick(bar.f);
  });
  svg.addEventListener("pointermove", (event) => { if (!tip.hidden) place(event); });
  svg.addEventListener("pointerout", () => { tip.hidden = true; unpick(); });
  svg.addEventListener("click", (event) => {
    const index = event.target.dataset && event.target.dataset.b;
    if (index === undefined) return;
    show("all");
    filter.value = data.files[data.bars[index].f];
    applyFilter();
    document.getElementById("files").scrollIntoView({ behavior: "smooth" });
  });
  let zoom = 1;
  const scroll = svg.parentElement;
  const setZoom = (next) => {
    const middle = (scroll.scrollLeft + scroll.clientWidth / 2) / zoom;
    zoom = Math.min(32, Math.max(1, next));
    svg.setAttribute("width", zoom * 100 + "%");
    scroll.scrollLeft = middle * zoom - scroll.clientWidth / 2;
  };
  document.getElementById("zoom-in").addEventListener("click", () => setZoom(zoom * 2));
  document.getElementById("zoom-out").addEventListener("click", () => setZoom(zoom / 2));
  document.getElementById("zoom-fit").addEventListener("click", () => setZoom(1));
}

rows.forEach((row) => {
  row.addEventListener("pointerenter", () => pick(row.dataset.f));
  row.addEventListener("pointerleave", unpick);
});

const filter = document.getElementById("filter");
const chips = [...document.querySelectorAll("[data-show]")];
let shown = "all";
function applyFilter() {
  const wanted = filter.value.toLowerCase();
  let visible = 0;
  rows.forEach((row) => {
    const fits = (shown === "all" || row.dataset.marks.split(" ").includes(shown)) && row.textContent.toLowerCase().includes(wanted);
    row.hidden = !fits;
    if (fits) visible += 1;
  });
  document.getElementById("visible").textContent = visible + " of " + rows.length;
}
function show(mark) {
  shown = mark;
  chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.show === mark)));
}
filter.addEventListener("input", applyFilter);
chips.forEach((chip) => chip.addEventListener("click", () => { show(chip.dataset.show); applyFilter(); }));

document.querySelectorAll("#files th[data-sort]").forEach((head) => {
  head.addEventListener("click", () => {
    const column = head.cellIndex;
    const numeric = head.dataset.sort === "number";
    const down = head.getAttribute("aria-sort") === "ascending" || (numeric && !head.hasAttribute("aria-sort"));
    document.querySelectorAll("#files th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? Number(cell.dataset.value || -1) : cell.textContent;
    };
    const sorted = rows.slice().sort((a, b) => {
      const left = key(a), right = key(b);
      return (numeric ? left - right : left.localeCompare(right)) * (down ? -1 : 1);
    });
    document.querySelector("#files tbody").append(...sorted);
  });
});
applyFilter();
`;
