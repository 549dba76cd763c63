// Draws a view with a pen: bands, edges, items, names. `look` says what stands out:
//   palette, range, measure, selected, sees, seen (sets of items), limit (a column), found (a set of items),
//   area (what of the view is visible), scale, signs (whether what opens and closes is shown).

const FADED = 0.2;
const MARGIN = 5.5; // of a bracket beside its columns
const SIGNS = 0.42; // the scale above which signs are large enough to be hit
const WORDS = { input: "img", conv: "conv", pool: "pool", up: "up", linear: "lin", custom: "op" };
const LETTERS = { norm: "N", act: "A", shape: "S" };

function drawView(pen, view, look) {
  const visible = look.area ?? { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
  drawBands(pen, view, look);
  drawEdges(pen, view, look, visible);
  for (const item of view.items) {
    const outside =
      item.x + item.width + item.depth < visible.left ||
      item.x - item.width > visible.right ||
      item.y + item.below < visible.top ||
      item.y - item.above > visible.bottom;
    if (!outside) drawItem(pen, item, look);
  }
  pen.fade(1);
  if (look.scale > 0.2) drawNames(pen, view, look, visible);
  drawLimit(pen, view, look);
}

function drawBands(pen, view, { palette }) {
  const bottom = view.bottom + 2;
  for (const { first, last, tier } of view.runs) {
    const left = view.spans[first].left - MARGIN;
    if (tier === 0) pen.box(left, -6, view.spans[last].right + MARGIN - left, bottom + 6, palette.band);
  }
  for (const row of view.rows.slice(0, -1)) {
    pen.ways([[-8, row.bottom, 0, row.bottom, view.width, row.bottom, view.width + 8, row.bottom]], palette.faint, 0.8);
  }
}

// Whether an item is pale: beyond the depth, or no part of what the selected item sees or is seen by.
function isFaded(item, look) {
  if (item.column > look.limit) return true;
  if (look.selected === null) return false;
  return item !== look.selected && !look.sees.has(item) && !look.seen.has(item);
}

// On which way an edge lies: from what the selected item sees, to what sees it, or neither.
function edgeRole(source, target, look) {
  if (look.selected === null) return "";
  if ((look.sees.has(source) || source === look.selected) && (look.sees.has(target) || target === look.selected)) return "sees";
  if ((look.seen.has(source) || source === look.selected) && (look.seen.has(target) || target === look.selected)) return "seen";
  return "faded";
}

function drawEdges(pen, view, look, visible) {
  const { palette, scale } = look;
  const bundles = new Map();
  for (const edge of view.edges) {
    if (edge.right < visible.left || edge.left > visible.right || edge.bottom < visible.top || edge.top > visible.bottom) continue;
    const [source, target] = [view.items[edge.source], view.items[edge.target]];
    const beyond = source.column > look.limit || target.column > look.limit;
    const role = beyond ? "faded" : edgeRole(source, target, look);
    const key = `${role}:${edge.kind}`;
    if (!bundles.has(key)) bundles.set(key, { role, kind: edge.kind, ways: [], heads: [] });
    bundles.get(key).ways.push(wayOf(view, edge));
    if (scale > 0.35) bundles.get(key).heads.push(arrowHead(edge));
  }
  const order = ["faded", "", "seen", "sees"];
  const sorted = [...bundles.values()].sort((one, other) => order.indexOf(one.role) - order.indexOf(other.role));
  for (const { role, kind, ways, heads } of sorted) {
    const line = palette.lines[kind];
    const colour = role === "sees" ? palette.sees : role === "seen" ? palette.seen : line.colour;
    const width = (role === "sees" || role === "seen" ? 1 : 0) + Math.max(line.width, scale < 0.35 ? 0.6 / scale : 0);
    pen.fade(role === "faded" ? FADED : 1);
    pen.ways(ways, colour, width, scale > 0.45 ? line.dash : []);
    pen.heads(heads, colour);
  }
  pen.fade(1);
}

function arrowHead({ way, tip }) {
  const [baseX, baseY] = [way[way.length - 2], way[way.length - 1]];
  const [dx, dy] = [(baseX - tip[0]) * 0.45, (baseY - tip[1]) * 0.45];
  return [tip[0], tip[1], baseX + dy, baseY - dx, baseX - dy, baseY + dx];
}

function drawItem(pen, item, look) {
  const colours = itemShades(look.palette, item, look.measure ? look.range : null);
  pen.fade(isFaded(item, look) ? FADED : 1);
  pen.begin(item);
  if (item.round) {
    pen.circle(item.x, item.y, item.width / 2, colours.front, colours.line, 1);
    pen.text(item.x, item.y + 3.8, item.symbol, item.symbol.length > 1 ? 6 : 11, colours.text, "middle", true);
  } else {
    drawSheet(pen, item, colours, look.scale);
  }
  if (look.scale > 0.3) {
    drawTexts(pen, item, look.palette);
    if (item.opens && look.signs) drawBadge(pen, badgeOf(item), "+", look.palette);
  }
  pen.end();
  drawOutline(pen, item, look);
}

function drawSheet(pen, item, colours, scale) {
  const [left, right] = [item.x - item.width / 2, item.x + item.width / 2];
  const [top, bottom] = [item.y - item.height / 2, item.y + item.height / 2];
  const { depth, lift } = item;
  if (depth && scale > 0.3) {
    pen.polygon([left, top, left + depth, top - lift, right + depth, top - lift, right, top], colours.upper, colours.line, 0.6);
    pen.polygon([right, top, right + depth, top - lift, right + depth, bottom - lift, right, bottom], colours.side, colours.line, 0.6);
  }
  pen.box(left, top, item.width, item.height, colours.front, scale > 0.15 ? colours.line : "", 0.8);
  const word = WORDS[item.kind] ?? LETTERS[item.kind] ?? "";
  const size = item.kind in LETTERS ? 7.5 : Math.min(9.5, (item.width - 2) / Math.max(2, word.length) / 0.56);
  if (word) pen.text(item.x, item.y + 0.36 * size, word, size, colours.text);
}

function drawTexts(pen, item, palette) {
  item.texts.forEach((text, place) => {
    const y = item.y + item.height / 2 + (place + 1) * (CAPTION + 1) + 2;
    pen.text(item.x, y, text, CAPTION, place ? palette.muted : palette.ink);
  });
}

// Where the small sign is that opens a closed layer.
function badgeOf(item) {
  return { x: item.x + item.width / 2 + item.depth - 1, y: item.y - item.height / 2 - item.lift + 1, radius: 4.6 };
}

function drawBadge(pen, { x, y, radius }, sign, palette) {
  pen.circle(x, y, radius, palette.paper, palette.ink, 0.9);
  const arm = radius * 0.55;
  const bars = [[x - arm, y, x, y, x, y, x + arm, y]];
  if (sign === "+") bars.push([x, y - arm, x, y, x, y, x, y + arm]);
  pen.ways(bars, palette.ink, 1.1);
}

// What the selected item sees has a dashed frame and an arrow to it; what sees it, a solid one with an arrow from it.
function drawOutline(pen, item, look) {
  const { palette, scale } = look;
  const width = Math.max(2, Math.min(6, 1.2 / scale));
  const frame = (grow, colour, dash, line = width) => {
    if (item.round) pen.circle(item.x, item.y, item.width / 2 + grow, "", colour, line, dash);
    else pen.box(item.x - item.width / 2 - grow, item.y - item.height / 2 - grow, item.width + 2 * grow, item.height + 2 * grow, "", colour, line, dash);
  };
  if (item === look.selected) {
    pen.fade(1);
    frame(2, palette.paper, [], width + 2.5);
    frame(2, palette.selected, [], width + 0.8);
    frame(4.9, palette.selected, [], 0.9);
  } else if (look.selected !== null && item.column <= look.limit) {
    const [sees, seen] = [look.sees.has(item), look.seen.has(item)];
    if (sees) frame(2, palette.sees, scale > 0.3 ? [3.5, 2] : []);
    if (seen) frame(sees ? 4.5 : 2, palette.seen, []);
    if (scale > 0.35 && (sees || seen)) drawMarks(pen, item, sees, seen, palette);
  }
  if (look.found.has(item)) {
    pen.fade(1);
    frame(6.5, palette.found, [1.5, 1.5], Math.max(1.8, 1 / scale));
  }
}

function drawMarks(pen, item, sees, seen, palette) {
  const [x, y] = [item.x - item.width / 2 - 2, item.y + item.height / 2 + 2];
  if (sees) pen.polygon([x - 2, y - 4, x + 5, y, x - 2, y + 4], palette.sees);
  const far = item.x + item.width / 2 + 2;
  if (seen) pen.polygon([far - 3, y - 4, far + 4, y, far - 3, y + 4], palette.seen);
}

function itemTitle(item) {
  return `${item.name}${item.times * item.repeats > 1 ? ` ×${item.times * item.repeats}` : ""}\n${shapeText(item.shape)}, level ${item.level}`;
}

function drawNames(pen, view, look, visible) {
  const { palette } = look;
  const inside = ({ first, last }) => view.spans[last].right > visible.left && view.spans[first].left < visible.right;
  for (const name of view.names.filter(inside)) {
    const [left, right] = [view.spans[name.first].left - 3, view.spans[name.last].right + 3];
    const rule = [left, name.y, left, name.y, right, name.y, right, name.y];
    pen.ways([rule], name.isOpen ? palette.ink : palette.rule, name.isOpen ? 1 : 0.8);
    if (name.isOpen) pen.ways([tick(left, name.y, -4), tick(right, name.y, -4)], palette.ink, 1);
    const badge = name.isOpen && look.signs ? 12 : 0;
    const middle = stayInside((left + right) / 2, left, right, visible);
    const [text, size] = fitted(name.name, right - left + GAPS[0] - 8 - badge);
    pen.text(middle + badge / 2, name.y + 11, text, size, palette.ink);
    name.badge = badge ? { x: middle + badge / 2 - textWidth(text, size) / 2 - 7, y: name.y + 8, radius: 4.6 } : null;
    if (name.badge) drawBadge(pen, name.badge, "-", palette);
  }
  for (const run of view.runs.filter(inside)) {
    const [left, right] = [view.spans[run.first].left - MARGIN, view.spans[run.last].right + MARGIN];
    pen.ways([[left, run.y, left, run.y, right, run.y, right, run.y]], palette.ink, 1);
    pen.ways([tick(left, run.y, 4), tick(right, run.y, 4)], palette.ink, 1);
    const middle = stayInside((left + right) / 2, left, right, visible);
    pen.text(middle, run.y - 4, run.times, 10.5, palette.ink, "middle", true);
    const beside = middle + 0.6 * textWidth(run.times, 10.5) + 8;
    run.badge = run.isOpen && look.signs ? { x: beside, y: run.y - 8, radius: 4.6 } : null;
    if (run.badge) drawBadge(pen, run.badge, run.isSpread ? "-" : "+", palette);
  }
}

function tick(x, y, length) {
  return [x, y, x, y, x, y + length, x, y + length];
}

// The middle of what is visible of a bracket, so that a wide one has its name in sight.
function stayInside(middle, left, right, visible) {
  const [from, to] = [Math.max(left, visible.left), Math.min(right, visible.right)];
  return from > left || to < right ? (from + to) / 2 : middle;
}

// The text at the size at which it fits, cut where even the smallest does not.
function fitted(text, room) {
  const size = Math.max(7, Math.min(10.5, (10.5 * room) / Math.max(1, textWidth(text, 10.5))));
  let cut = text;
  while (cut.length > 2 && textWidth(cut, size) > room + 0.01) cut = `${cut.slice(0, -2)}…`;
  return [cut, size];
}

function drawLimit(pen, view, look) {
  if (look.limit >= view.columns - 1) return;
  const x = view.spans[look.limit].right + view.gaps[look.limit + 1] / 2;
  pen.ways([[x, -10, x, 0, x, view.bottom, x, view.bottom + 6]], look.palette.ink, Math.max(1.4, 1 / look.scale), [6, 3]);
}

// The levels and their sizes, in the pixels of the screen: they stay in sight.
function drawAxis(pen, view, { palette }, place, right, size) {
  for (const row of view.rows) {
    pen.text(right, place(row.middle) + 0.36 * size, `${row.level} · ${sizeText(row.size)}`, size, palette.muted, "end");
  }
  if (view.rows.length) pen.text(right, place(view.rows[0].top) - 3, "level · size", size * 0.8, palette.muted, "end");
}
