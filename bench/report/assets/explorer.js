"use strict";
// The explorer of cases: an image with the readers' outlines, and mean, deviation and samples of every method.
(() => {
  const source = document.getElementById("cases");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const root = document.getElementById("explorer");
  const SVG = "http://www.w3.org/2000/svg";
  const most = Math.max(1, ...data.methods.map((method) => method.samples));
  const state = { case: null, sample: 0, zoomed: true, readers: new Set(data.readers.keys()) };
  let pictures = null; // of the case on show: decoded images and bits
  let sampleTiles = [];

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  async function decoded(png) {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    return image;
  }

  // Whether each pixel of a strip of masks is set.
  async function bitsOf(png) {
    const image = await decoded(png);
    const canvas = element("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, image.width, image.height).data;
    return Uint8Array.from({ length: rgba.length / 4 }, (_, i) => (rgba[4 * i] > 127 ? 1 : 0));
  }

  function maskOf(bits, index) {
    const [height, width] = state.case.size;
    return bits.subarray(index * height * width, (index + 1) * height * width);
  }

  const areaOf = (mask) => mask.reduce((sum, bit) => sum + bit, 0);

  // The border of a mask as closed lines along the edges of its pixels, each walked with the mask on its right.
  function outline(mask) {
    const [height, width] = state.case.size;
    const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
    const next = new Map();
    const add = (x, y, toX, toY) => {
      const key = y * (width + 1) + x;
      next.set(key, [...(next.get(key) ?? []), [toX, toY]]);
    };
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!at(x, y)) continue;
        if (!at(x, y - 1)) add(x, y, x + 1, y);
        if (!at(x + 1, y)) add(x + 1, y, x + 1, y + 1);
        if (!at(x, y + 1)) add(x + 1, y + 1, x, y + 1);
        if (!at(x - 1, y)) add(x, y + 1, x, y);
      }
    }
    let path = "";
    while (next.size) {
      let key = next.keys().next().value;
      path += `M${key % (width + 1)} ${Math.floor(key / (width + 1))}`;
      while (next.has(key)) {
        const ends = next.get(key);
        const [x, y] = ends.pop();
        if (!ends.length) next.delete(key);
        path += `L${x} ${y}`;
        key = y * (width + 1) + x;
      }
      path += "Z";
    }
    return path;
  }

  function line(path, attributes) {
    const made = document.createElementNS(SVG, "path");
    made.setAttribute("d", path);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const readersLines = () => state.case.read.map((r) => {
    const { colour, dash } = data.readers[r];
    const made = line(pictures.outlines[r], { class: "reader", "data-reader": r, stroke: colour, "stroke-dasharray": dash });
    made.style.display = state.readers.has(r) ? "" : "none";
    return made;
  });

  // A part of a strip under lines; `text` stands below it and is read aloud for it.
  function tile(strip, index, lines, text, about) {
    const [x, y, width, height] = state.zoomed ? state.case.window : [0, 0, state.case.size[1], state.case.size[0]];
    const canvas = element("canvas", { width, height });
    canvas.getContext("2d").drawImage(strip, x, y + index * state.case.size[0], width, height, 0, 0, width, height);
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    drawing.append(...lines);
    const picture = element("div", { class: "picture", role: "img", "aria-label": `${about}, ${text}` }, canvas, drawing);
    const caption = element("div", {}, text);
    return { tile: element("div", { class: "tile" }, picture, caption), picture, drawing, caption };
  }

  // What the slider shows of a method: those with fewer samples begin again.
  function sampleOf(place) {
    const { label, samples } = data.methods[place];
    const index = state.sample % samples;
    const first = data.methods.slice(0, place).reduce((sum, method) => sum + method.samples, 0);
    const mask = maskOf(pictures.samples, first + index);
    const weight = state.case.weights[place]?.[index];
    const words = [samples > 1 ? `sample ${index + 1} of ${samples}` : "its one answer"];
    if (weight !== undefined) words.push(`weight ${weight.toFixed(2)}`);
    if (!areaOf(mask)) words.push("nothing marked");
    return { path: outline(mask), text: words.join(", "), label };
  }

  function card(title, tiles) {
    const row = element("div", { class: "tiles" }, ...tiles.map((t) => t.tile));
    return element("figure", { class: "method" }, element("figcaption", {}, title), row);
  }

  function draw() {
    const nobody = state.case.read.filter((r) => !areaOf(maskOf(pictures.masks, r))).map((r) => data.readers[r].name);
    const marked = `${state.case.read.length - nobody.length} of ${state.case.read.length} readers marked it`;
    sampleTiles = [];
    const cards = [
      card(nobody.length ? `Readers (nothing marked by ${nobody.join(", ")})` : "Readers", [
        tile(pictures.image, 0, readersLines(), "image", marked),
        tile(pictures.mean, 0, readersLines(), "mean", "readers"),
        tile(pictures.deviation, 0, [], "standard deviation", "readers"),
      ]),
      ...data.methods.map((method, place) => {
        const { path, text, label } = sampleOf(place);
        const red = line(path, { class: "sample" });
        const sample = tile(pictures.image, 0, [red, ...readersLines()], text, label);
        sampleTiles.push({ ...sample, red });
        const mean = tile(pictures.mean, place + 1, readersLines(), "mean", label);
        const deviation = tile(pictures.deviation, place + 1, [], "standard deviation", label);
        return card(label, method.samples > 1 ? [mean, deviation, sample] : [mean, sample]);
      }),
    ];
    methods.replaceChildren(...cards);
  }

  function drawSamples() {
    sampleTiles.forEach(({ picture, caption, red }, place) => {
      const { path, text, label } = sampleOf(place);
      red.setAttribute("d", path);
      caption.textContent = text;
      picture.setAttribute("aria-label", `${label}, ${text}`);
    });
    slider.value = state.sample + 1;
    count.textContent = `${state.sample + 1} of ${most}`;
  }

  async function show(chosen) {
    state.case = chosen;
    const [image, mean, deviation, masks, samples] = await Promise.all([
      decoded(chosen.image), decoded(chosen.mean), decoded(chosen.deviation), bitsOf(chosen.masks), bitsOf(chosen.samples),
    ]);
    if (state.case !== chosen) return; // another was chosen in the meantime
    pictures = { image, mean, deviation, masks, samples };
    pictures.outlines = data.readers.map((_, r) => outline(maskOf(masks, r)));
    draw();
    drawSamples();
    const rules = chosen.rules.map((rule) => `${rule}: ${data.rules[rule]}`);
    const facts = [...rules, ...chosen.groups, `disagreement of the readers ${chosen.dispute.toFixed(3)}`];
    status.textContent = `Case ${chosen.name}. ${facts.join("; ")}.`;
  }

  const nameOf = (one) => (one.rules.length ? `${one.rules.join(", ")} – ${one.name}` : one.name);

  // The cases of the group in the order that was asked for.
  function fill() {
    const wanted = data.cases.filter((one) => group.value === "" || one.groups.includes(group.value));
    if (order.value === "dispute") wanted.sort((a, b) => b.dispute - a.dispute);
    list.replaceChildren(...wanted.map((one) => {
      const text = order.value === "dispute" ? `${one.dispute.toFixed(3)} – ${nameOf(one)}` : nameOf(one);
      return element("option", { value: data.cases.indexOf(one) }, text);
    }));
    const kept = wanted.includes(state.case) ? state.case : wanted[0];
    list.value = data.cases.indexOf(kept);
    show(kept);
  }

  function step(by) {
    const count = list.options.length;
    list.selectedIndex = (list.selectedIndex + by + count) % count;
    show(data.cases[list.value]);
  }

  function moveSample(by) {
    state.sample = (state.sample + by + most) % most;
    drawSamples();
  }

  const order = element("select", {}, element("option", { value: "rule" }, "by rule"), element("option", { value: "dispute" }, "most disputed first"));
  const groups = [...new Set(data.cases.flatMap((one) => one.groups))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const group = element("select", {}, element("option", { value: "" }, "all"), ...groups.map((g) => element("option", { value: g }, g)));
  const list = element("select", { class: "case" });
  const previous = element("button", { type: "button", title: "Previous case (key P)" }, "‹ Previous");
  const following = element("button", { type: "button", title: "Next case (key N)" }, "Next ›");
  const slider = element("input", { type: "range", min: 1, max: most, value: 1, "aria-label": "Sample" });
  const count = element("output");
  const zoom = element("input", { type: "checkbox" });
  zoom.checked = true;
  const boxes = data.readers.map(({ name, colour, dash }, r) => {
    const box = element("input", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) state.readers.add(r);
      else state.readers.delete(r);
      for (const path of root.querySelectorAll(`[data-reader="${r}"]`)) path.style.display = box.checked ? "" : "none";
    });
    const drawing = document.createElementNS(SVG, "svg");
    drawing.setAttribute("class", "swatch");
    drawing.append(line("M0 6H26", { stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash }));
    return element("label", {}, box, drawing, name);
  });
  order.addEventListener("change", fill);
  group.addEventListener("change", fill);
  list.addEventListener("change", () => show(data.cases[list.value]));
  previous.addEventListener("click", () => step(-1));
  following.addEventListener("click", () => step(1));
  slider.addEventListener("input", () => {
    state.sample = Number(slider.value) - 1;
    drawSamples();
  });
  zoom.addEventListener("change", () => {
    state.zoomed = zoom.checked;
    draw();
  });

  const status = element("p", { class: "status", "aria-live": "polite" });
  const methods = element("div", { class: "methods" });
  const scale = (from, to, colours) => {
    const bar = element("span", { class: "scale" });
    bar.style.background = `linear-gradient(to right, ${colours})`;
    return element("span", {}, from, bar, to);
  };
  const key = element("p", {},
    "Mean: ", scale("0", "1", "#440154, #3b528b, #21918c, #5ec962, #fde725"), "; standard deviation: ",
    scale("0", "0.5", "#000004, #51127c, #b73779, #fc8961, #fcfdbf"),
    "; red: what the sample marks. Keys: ← → samples, P N cases.");
  const remarks = [];
  if (data.simulated) remarks.push("The images are simulated.");
  if (data.step > 1) remarks.push(`Every ${data.step}th pixel is shown.`);
  if (data.left_out) remarks.push(`${data.left_out} more cases are not on this page, which stays below 10 MB.`);
  const labelled = (text, ...controls) => element("label", {}, `${text} `, ...controls);
  root.replaceChildren(
    ...(remarks.length ? [element("p", {}, remarks.join(" "))] : []),
    element("div", { class: "controls" },
      labelled("Order", order), labelled("Group", group), labelled("Case", list), element("span", {}, previous, " ", following),
      labelled("Sample", slider, " ", count), element("label", {}, zoom, " zoom to what the readers marked"),
      element("fieldset", {}, element("legend", {}, "Outlines"), ...boxes)),
    status, key, methods);

  addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches("select, input[type=range]")) return;
    const { top, bottom } = root.getBoundingClientRect();
    if (!root.contains(target) && (target !== document.body || bottom < 0 || top > innerHeight)) return;
    const act = { ArrowLeft: () => moveSample(-1), ArrowRight: () => moveSample(1), p: () => step(-1), n: () => step(1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  fill();
})();
