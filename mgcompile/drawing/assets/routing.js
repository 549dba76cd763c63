// The way of each edge: along its row, across a gap between two columns, or on a track above its row. A way is a flat
// list of numbers, a start and three points for each cubic piece; its arrow ends at `tip`.

const ARROW = 5.5;

// The way of an edge, found when it is first drawn.
function wayOf(view, edge) {
  if (edge.way !== null) return edge.way;
  const [source, target] = [view.items[edge.source], view.items[edge.target]];
  if (edge.inside) routeInside(edge, source, target);
  else if (edge.arc !== null) routeOver(view, edge, source, target, edge.arc);
  else routeAcross(view, edge, source, target);
  return edge.way;
}

// Whether another item stands above, in its column and row.
function isCovered(view, item) {
  return view.highest.get((item.level + 4096) * 2 ** 24 + item.column) > item.lane;
}

// Which part of the view each edge can touch.
function boundEdges(view) {
  view.highest = new Map();
  for (const item of view.items) {
    const key = (item.level + 4096) * 2 ** 24 + item.column;
    view.highest.set(key, Math.max(view.highest.get(key) ?? 0, item.lane));
  }
  for (const edge of view.edges) {
    const [source, target] = [view.items[edge.source], view.items[edge.target]];
    edge.way = null;
    edge.left = Math.min(source.x, target.x) - 40;
    edge.right = Math.max(source.x, target.x) + 60;
    edge.top = Math.min(source.y, target.y) - 40;
    if (edge.arc !== null) edge.top = Math.min(edge.top, view.middles.get(source.level) - edge.arc);
    edge.bottom = Math.max(source.y, target.y) + 40;
  }
}

// Between two levels of one closed layer: a bow at its right side.
function routeInside(edge, source, target) {
  const down = source.y < target.y;
  const x = (item) => item.x + item.width / 2 + item.depth;
  const from = [x(source), source.y + (down ? 0.2 : -0.2) * source.height];
  const to = [x(target) + ARROW, target.y + (down ? -0.2 : 0.2) * target.height];
  const out = Math.max(from[0], to[0]) + 8 + (down ? 0 : 3);
  edge.way = [...from, out, from[1], out, to[1], ...to];
  edge.tip = [x(target), to[1]];
}

// How far below the middles an edge leaves and enters, so that edges of different kinds part.
function ports(source, target) {
  if (source.level === target.level) return [0, 0];
  const sign = source.level < target.level ? 1 : -1;
  return [sign * Math.min(5, 0.2 * source.height), -sign * Math.min(6, 0.26 * target.height)];
}

function routeAcross(view, edge, source, target) {
  const [leaving, entering] = ports(source, target);
  const here = [source.x + source.width / 2 + source.depth, source.y + leaving];
  const tip = [target.x - target.width / 2, target.y + entering];
  const end = [tip[0] - ARROW, tip[1]];
  edge.tip = tip;
  edge.way = [...here];
  if (here[1] === tip[1]) {
    straightTo(edge.way, end);
    return;
  }
  const gap = edge.free ? target.column : source.column + 1;
  const leave = [Math.max(here[0], view.spans[gap - 1].right), here[1]];
  const arrive = [Math.min(tip[0], view.spans[gap].left) - ARROW, tip[1]];
  straightTo(edge.way, leave);
  swayTo(edge.way, arrive);
  straightTo(edge.way, end);
}

// Up to a track, along it, and down on top of the target, or across the gap before it where it lies in another row.
function routeOver(view, edge, source, target, rise) {
  const track = view.middles.get(source.level) - rise;
  const way = startOnTrack(view, source, track, isCovered(view, source));
  edge.way = way;
  const reached = way[way.length - 2];
  const distance = target.column - source.column;
  if (source.level === target.level && !isCovered(view, target)) {
    const tip = [target.x - 0.22 * target.width + target.depth, target.y - target.height / 2 - target.lift];
    const stop = [tip[0], tip[1] - ARROW];
    edge.tip = tip;
    if (distance > 0 && distance <= 4 && !isCovered(view, source)) {
      edge.way = bow(source, stop, track);
      return;
    }
    const radius = Math.min(14, Math.max(3, 0.8 * (stop[1] - track)));
    const side = distance > 0 ? -1 : 1;
    straightTo(way, [distance > 0 ? Math.max(reached, tip[0] - radius) : tip[0] + radius, track]);
    way.push(tip[0] + side * 0.45 * radius, track, tip[0], track + 0.45 * (stop[1] - track), ...stop);
    return;
  }
  const [, entering] = source.level === target.level ? [0, -0.2 * target.height] : ports(source, target);
  edge.tip = [target.x - target.width / 2, target.y + entering];
  const span = view.spans[target.column];
  const before = target.column ? view.spans[target.column - 1].right : span.left - GAPS[1];
  straightTo(way, [distance > 0 ? Math.max(reached, before) : before, track]);
  swayTo(way, [Math.max(span.left - ARROW, before + 1), edge.tip[1]]);
  straightTo(way, [edge.tip[0] - ARROW, edge.tip[1]]);
}

// From the top of an item, or from its right side where another stands above it.
function startOnTrack(view, source, track, covered) {
  const right = source.x + source.width / 2 + source.depth;
  if (covered) {
    const way = [right, source.y - 0.2 * source.height];
    const foot = [Math.max(right, view.spans[source.column].right), way[1]];
    straightTo(way, foot);
    swayTo(way, [foot[0] + view.gaps[source.column + 1] - ARROW, track]);
    return way;
  }
  const begin = [source.x + 0.28 * source.width + source.depth, source.y - source.height / 2 - source.lift];
  const rise = begin[1] - track;
  const radius = Math.min(14, Math.max(3, 0.8 * rise));
  return [...begin, begin[0], begin[1] - 0.55 * rise, begin[0] + 0.55 * radius, track, begin[0] + radius, track];
}

// Over a few columns one bow; a cubic rises to three quarters of its handles.
function bow(source, stop, track) {
  const begin = [source.x + 0.28 * source.width + source.depth, source.y - source.height / 2 - source.lift];
  const lowest = Math.max(begin[1], stop[1]);
  const handle = lowest - (lowest - track) / 0.75;
  const lean = 0.12 * (stop[0] - begin[0]);
  return [...begin, begin[0] + lean, handle, stop[0] - lean, handle, ...stop];
}

function straightTo(way, [x, y]) {
  const [fromX, fromY] = [way[way.length - 2], way[way.length - 1]];
  if (fromX === x && fromY === y) return;
  const [dx, dy] = [(x - fromX) / 3, (y - fromY) / 3];
  way.push(fromX + dx, fromY + dy, x - dx, y - dy, x, y);
}

function swayTo(way, [x, y]) {
  const [fromX, fromY] = [way[way.length - 2], way[way.length - 1]];
  const half = 0.6 * (x - fromX);
  way.push(fromX + half, fromY, x - half, y, x, y);
}
