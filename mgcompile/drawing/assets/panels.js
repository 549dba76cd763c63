// What is said in words beside the lattice: facts, details, tooltip, caption, legend, what a search found.

const MOST_FOUND = 60;

function byId(id) {
  return document.getElementById(id);
}

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function fillFacts(model) {
  byId("title").textContent = model.name;
  for (const [name, value] of model.facts) {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    byId("facts").append(pair);
  }
}

// What is known of an item, as [name, value].
function factsOf(model, item) {
  const facts = [];
  const cell = item.cells[0];
  if (item.single) {
    facts.push(["operation", model.label[cell]]);
  } else {
    const work = new Map();
    for (const each of item.cells) work.set(model.label[each], (work.get(model.label[each]) ?? 0) + 1);
    const named = [...work].map(([label, count]) => (count > 1 ? `${count} × ${label}` : label));
    const shown = named.length > 6 ? [...named.slice(0, 5), `${named.length - 5} more`] : named;
    facts.push(["operations", `${item.cells.length}: ${shown.join(", ")}`]);
  }
  facts.push(["level", String(item.level)], ["shape", shapeText(item.shape)]);
  for (const measure of model.measures) {
    const value = figure(measure, item.cells);
    if (value === null) continue;
    let text = figureText(measure, value);
    if (item.times > 1 && measure.adds && item.all.length > item.cells.length) {
      text += ` (all ${item.times} repeats: ${figureText(measure, figure(measure, item.all))})`;
    }
    facts.push([measure.title, text]);
  }
  if (item.times > 1) facts.push(["stands for", `${item.times} repeats`]);
  if (item.repeats > 1) facts.push(["holds", `${item.repeats} repeats`]);
  if (item.outputs.length) facts.push(["output", item.outputs.join(", ")]);
  const origins = [...new Set(item.cells.map((each) => model.origin[each]).filter(Boolean))];
  if (origins.length) facts.push(["spec", origins.slice(0, 3).join(", ") + (origins.length > 3 ? ", …" : "")]);
  return facts;
}

function fillCard(place, model, item) {
  const list = element("dl");
  for (const [name, value] of factsOf(model, item)) list.append(element("dt", name), element("dd", value));
  place.replaceChildren(element("strong", item.name), list);
  place.classList.add("card");
}

function itemText(model, item) {
  return [item.name, ...factsOf(model, item).map(([name, value]) => `${name} ${value}`)].join("; ");
}

function fillDetails(state, actions) {
  const place = byId("details");
  const item = state.item();
  if (item === null) {
    const { model } = state;
    place.classList.remove("card");
    const operations = `${model.count} operations in ${model.roots.length} layers.`;
    place.replaceChildren(
      element("h2", "Nothing selected"),
      element("p", operations),
      element("p", "Click a cell to see what it reads and what reads it. Double click opens a layer. ? is help."),
    );
    return;
  }
  fillCard(place, state.model, item);
  const list = place.querySelector("dl");
  list.append(element("dt", "sees"), element("dd", `${state.sees.size} operations`));
  list.append(element("dt", "seen by"), element("dd", `${state.seen.size} operations`));
  const buttons = element("div", "", { class: "actions" });
  const around = state.around(item);
  for (const [text, shown, act] of [
    ["Open", item.opens, actions.open],
    [`Close ${around?.name ?? ""}`, around !== null, actions.close],
    ["Clear", true, actions.clear],
  ]) {
    if (!shown) continue;
    const button = element("button", text);
    button.addEventListener("click", act);
    buttons.append(button);
  }
  place.append(buttons);
}

function say(text) {
  byId("live").textContent = text;
}

function captionText(state) {
  const { levels, figures } = state.soFar();
  const named = levels.length === 1 ? `level ${levels[0]}` : `levels ${levels.join(", ")}`;
  const parts = figures.filter(([, value]) => value !== null).map(([measure, value]) => {
    return `${figureText(measure, value)} ${measure.adds ? measure.title : `largest ${measure.title}`}`;
  });
  return [`Column ${state.limit + 1} of ${state.view.columns}`, `active: ${named}`, ...parts].join(" · ");
}

function swatch(width, height, draw) {
  const pen = new SvgPen();
  draw(pen);
  return pen.document(0, 0, width, height, "", "").replace("<title></title>\n", "").replace('role="img"', 'aria-hidden="true"');
}

// A list of a picture and a text for each; the pictures are made by the pen that saves drawings.
function legendList(entries, kind) {
  const list = element("ul", "", kind ? { class: kind } : {});
  for (const [picture, text] of entries) {
    const line = element("li");
    line.innerHTML = picture;
    line.append(text);
    list.append(line);
  }
  return list;
}

const FUSIONS = { C: "concatenation", "+": "sum", "×": "product", max: "maximum" };

function kindEntries(model, { view, measure }, palette) {
  const coloured = (kind) => (measure ? palette.nothing : palette.kinds[kind]);
  const kinds = new Set(view.items.map((item) => item.kind));
  const entries = [];
  for (const [kind, [name]] of Object.entries(model.look.kinds)) {
    if (!kinds.has(kind) || kind === "fuse") continue;
    const item = { kind, x: 15, y: 9, width: kind in LETTERS ? 11 : 27, height: 15, depth: 0, lift: 0 };
    entries.push([swatch(30, 18, (pen) => drawSheet(pen, item, coloured(kind), 1)), name]);
  }
  for (const symbol of new Set(view.items.filter((item) => item.round).map((item) => item.symbol))) {
    const draw = (pen) => {
      pen.circle(15, 9, 8, palette.kinds.fuse.front, palette.kinds.fuse.line, 1);
      pen.text(15, 12.8, symbol, symbol.length > 1 ? 6 : 11, palette.kinds.fuse.text, "middle", true);
    };
    entries.push([swatch(30, 18, draw), FUSIONS[symbol] ?? symbol]);
  }
  return entries;
}

function edgeEntries(model, view, palette) {
  const kinds = new Set(view.edges.map((edge) => edge.kind));
  return Object.entries(model.look.lines)
    .filter(([kind]) => kinds.has(kind))
    .map(([kind, [name]]) => {
      const { colour, width, dash } = palette.lines[kind];
      const way = kind === "shortcut" ? [2, 13, 2, 2, 24, 2, 26, 9] : [0, 8, 8, 8, 16, 8, 24, 8];
      const tip = kind === "shortcut" ? [26.5, 14] : [30, 8];
      return [swatch(32, 16, (pen) => (pen.ways([way], colour, width, dash), pen.heads([arrowHead({ way, tip })], colour))), name];
    });
}

function roleEntries(palette) {
  const frame = (colour, dash, mark) => (pen) => {
    pen.box(7, 2, 18, 12, "", colour, 2, dash);
    pen.polygon(mark, colour);
  };
  return [
    [swatch(32, 16, frame(palette.sees, [3.5, 2], [4, 10, 11, 14, 4, 16])), "what the selected cell can see"],
    [swatch(32, 16, frame(palette.seen, [], [23, 10, 30, 14, 23, 16])), "what can see it"],
  ];
}

function fillLegend(state, palette, range) {
  const { model, view, measure } = state;
  const place = byId("legend");
  const looks = [...new Set(view.items.map((item) => item.kind + item.symbol)), ...new Set(view.edges.map(({ kind }) => kind))];
  const key = [looks, measure?.key, range?.least, range?.most, palette.dark, state.selected !== null].join();
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren();
  if (state.selected !== null) place.append(element("h2", "Selection"), legendList(roleEntries(palette)));
  if (measure) {
    place.append(element("h2", `${measure.title}${measure.adds ? "" : " (largest)"}`));
    const bar = (pen) => palette.steps.forEach((step, at) => pen.box(at * 10, 0, 10.5, 14, step.front));
    const line = element("div");
    line.innerHTML = swatch(240, 14, bar);
    const ends = element("div", "", { class: "scale" });
    ends.append(element("span", figureText(measure, range.least, true)), element("span", "logarithmic"));
    ends.append(element("span", figureText(measure, range.most, true)));
    place.append(line, ends, element("p"));
  }
  place.append(element("h2", "Cells"), legendList(kindEntries(model, state, palette), "kinds"));
  place.append(element("h2", "Edges"), legendList(edgeEntries(model, view, palette)));
}

function fillResults(state, choose) {
  const list = byId("results");
  const { found, query } = state;
  list.hidden = query === "";
  const lines = found.slice(0, MOST_FOUND).map((each, place) => {
    const line = element("li", each.layer ? `${each.name} (layer)` : each.name, { role: "option", "aria-selected": "false" });
    line.addEventListener("mousedown", (event) => {
      event.preventDefault();
      choose(place);
    });
    return line;
  });
  if (!found.length) lines.push(element("li", "nothing has this name", { class: "note" }));
  if (found.length > MOST_FOUND) lines.push(element("li", `${found.length - MOST_FOUND} more`, { class: "note" }));
  list.replaceChildren(...lines);
  const box = byId("search").getBoundingClientRect();
  list.style.left = `${Math.max(4, Math.min(box.left, window.innerWidth - list.offsetWidth - 8))}px`;
  list.style.top = `${box.bottom + 3}px`;
}
