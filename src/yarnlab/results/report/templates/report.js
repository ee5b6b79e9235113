// Draws every embedded specification at the width of its column, again when the width changes. Colours are CSS
// variables, so the colour scheme and printing recolour the charts without drawing them again.
const AXES = 64; // pixels that axis labels take beside a panel

function recoloured(text) {
  return text.replace(/"#([0-9a-f]{6})"/g, (whole, digits) => (PALETTE.includes(digits) ? `"var(--c${digits})"` : whole));
}

function legends(node, columns) {
  if (Array.isArray(node)) node.forEach((child) => legends(child, columns));
  else if (node && typeof node === "object") {
    if (node.legend && node.legend.columns) node.legend.columns = columns;
    Object.entries(node).forEach(([key, child]) => { if (key !== "datasets" && key !== "data") legends(child, columns); });
  }
}

function fitted(spec, width, { columns: most, margin } = spec.usermeta, alone = true) {
  if (spec.vconcat) {
    // A chart for each base model.
    spec.vconcat.forEach((part) => fitted(part, width, spec.usermeta, false));
    return spec;
  }
  legends(spec, Math.max(1, Math.min(4, Math.floor(width / 160))));
  if (!most) {
    spec.width = alone ? width : width - AXES - 24;
    if (alone) spec.autosize = { type: "fit-x", contains: "padding" }; // one of several can't be fitted
    if (width < 500 && spec.height > 300) spec.height = 320;
    return spec;
  }
  const room = width - (margin || AXES);
  if (spec.concat) {
    // Panels side by side have an axis each.
    const columns = Math.max(1, Math.min(most, Math.floor(width / 260)));
    spec.columns = columns;
    spec.concat.forEach((panel) => { panel.width = Math.floor(width / columns) - AXES - 24; });
    return spec;
  }
  const columns = Math.max(1, Math.min(most, Math.floor(room / (most > 2 ? 130 : 300))));
  spec.columns = columns;
  spec.spec.width = Math.max(90, Math.floor(room / columns) - 24);
  return spec;
}

async function draw(plot) {
  const name = plot.dataset.plot;
  const text = document.querySelector(`script[data-spec="${name}"]`).textContent;
  const width = plot.clientWidth;
  if (width === 0) return; // inside a closed <details>; drawn when it opens
  if (plot.dataset.drawn === String(width)) return;
  plot.dataset.drawn = width;
  const spec = fitted(JSON.parse(recoloured(text)), width);
  await vegaEmbed(plot, spec, { actions: false, renderer: "svg", mode: "vega-lite", tooltip: { theme: "report" } });
  plot.dataset.ready = "true";
}

const drawAll = () => document.querySelectorAll(".plot").forEach(draw);
let waiting;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
document.addEventListener("toggle", drawAll, true);

// A link to something inside a closed <details> opens it.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  if (target) target.scrollIntoView();
}
window.addEventListener("hashchange", reveal);

// On paper everything is open; what was closed closes again afterwards.
let closed = [];
window.addEventListener("beforeprint", () => {
  const now = [...document.querySelectorAll("details:not([open])")];
  closed.push(...now); // a browser may announce one print twice
  now.forEach((d) => { d.open = true; });
  drawAll();
});
window.addEventListener("afterprint", () => closed.splice(0).forEach((d) => { d.open = false; }));

// Where MLflow's pages are is known to the reader alone: `yarnlab dashboard` takes the next port when one is in use.
const address = document.getElementById("mlflow");
if (address) address.addEventListener("change", () => {
  document.querySelectorAll("a.run").forEach((run) => { run.href = address.value.replace(/\/*$/, "/") + run.hash; });
});

drawAll();
reveal();
