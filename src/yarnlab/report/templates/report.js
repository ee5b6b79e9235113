// Draws every embedded specification at the width of its column, again when the width or the colour scheme changes.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const AXES = 64; // pixels that axis labels take beside a panel

function recoloured(text, night) {
  if (!night) return text;
  return text.replace(/#[0-9a-f]{6}/g, (colour) => DARK[colour] ?? colour);
}

function legends(node, columns) {
  if (Array.isArray(node)) node.forEach((child) => legends(child, columns));
  else if (node && typeof node === "object") {
    if (node.legend && node.legend.columns) node.legend.columns = columns;
    Object.entries(node).forEach(([key, child]) => { if (key !== "datasets" && key !== "data") legends(child, columns); });
  }
}

function fitted(spec, width) {
  const most = spec.usermeta.columns;
  legends(spec, Math.max(1, Math.min(4, Math.floor(width / 160))));
  if (!most) {
    spec.width = width;
    spec.autosize = { type: "fit-x", contains: "padding" };
    if (width < 500 && spec.height > 300) spec.height = 320;
    return spec;
  }
  const room = width - (spec.usermeta.margin || AXES);
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
  const key = `${width} ${dark.matches}`;
  if (plot.dataset.drawn === key) return;
  plot.dataset.drawn = key;
  const spec = fitted(JSON.parse(recoloured(text, dark.matches)), width);
  await vegaEmbed(plot, spec, { actions: false, renderer: "svg", mode: "vega-lite" });
  plot.dataset.ready = "true";
}

const drawAll = () => document.querySelectorAll(".plot").forEach(draw);
let waiting;
window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
dark.addEventListener("change", drawAll);
document.addEventListener("toggle", drawAll, true);
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
drawAll();
