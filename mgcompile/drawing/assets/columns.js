// The column and the lane of every visible item. Returns their places from left to right.

function placeItems(model, items, edges) {
  formTeams(model, items);
  const columns = longestPaths(items, edges);
  items.forEach((item, place) => (item.column = columns[place]));
  const order = byColumn(items);
  assignLanes(items, edges, order);
  return order;
}

// All levels of a closed layer are a team and stand in one column. So do the single operations of an open layer that
// have one column where everything is open.
function formTeams(model, items) {
  const numbers = new Map();
  for (const item of items) {
    const column = item.single ? model.column[item.cells[0]] + 1 : 0;
    const key = item.layer.number * 2 ** 24 + column;
    if (!numbers.has(key)) numbers.set(key, numbers.size);
    item.team = numbers.get(key);
  }
}

// Each team stands right of all that it reads. Where teams read each other, their items stand alone; where those do
// too (a closed layer reads what it feeds), the first in the graph goes first, and an edge points left.
function longestPaths(items, edges) {
  const teams = 1 + items.reduce((most, item) => Math.max(most, item.team), -1);
  const { depth, tangled } = layered(teams, edges, (item) => items[item].team);
  return tangled ? layered(items.length, edges, (item) => item).depth : items.map((item) => depth[item.team]);
}

// The longest path to each node, by its number, and whether there is a way from one to itself.
function layered(count, edges, nodeOf) {
  const [from, to] = [new Int32Array(edges.length), new Int32Array(edges.length)];
  const waiting = new Int32Array(count);
  const firstEdge = new Int32Array(count + 1);
  edges.forEach(({ source, target }, place) => {
    [from[place], to[place]] = [nodeOf(source), nodeOf(target)];
    if (from[place] === to[place]) return;
    waiting[to[place]]++;
    firstEdge[from[place] + 1]++;
  });
  for (let node = 0; node < count; node++) firstEdge[node + 1] += firstEdge[node];
  const readers = new Int32Array(firstEdge[count]);
  const next = firstEdge.slice();
  for (let place = 0; place < from.length; place++) if (from[place] !== to[place]) readers[next[from[place]]++] = to[place];
  const depth = new Int32Array(count);
  const done = new Uint8Array(count);
  const ready = [];
  for (let node = count - 1; node >= 0; node--) if (!waiting[node]) ready.push(node);
  let tangled = false;
  for (let placed = 0, first = 0; placed < count; placed++) {
    if (!ready.length) {
      tangled = true;
      while (done[first]) first++;
      ready.push(first);
    }
    const node = ready.pop();
    done[node] = 1;
    for (let place = firstEdge[node]; place < firstEdge[node + 1]; place++) {
      const reader = readers[place];
      if (done[reader]) continue;
      depth[reader] = Math.max(depth[reader], depth[node] + 1);
      if (!--waiting[reader]) ready.push(reader);
    }
  }
  return { depth, tangled };
}

// Items of one column and level stand above each other; lane 0 is the row itself. A branch keeps its lane; the parts of
// an exchange, and what is done on the shortcut of a unit, leave the row to the grids that go on along it.
function assignLanes(items, edges, order) {
  const count = items.length;
  // Of the edges along a level: the sources of each item and the last of them; its readers, those that only add.
  const [sources, source, readers, adding] = Array.from({ length: 4 }, () => new Int32Array(count));
  const working = new Int32Array(count);
  for (const edge of edges) {
    const target = items[edge.target];
    if (items[edge.source].level !== target.level) continue;
    sources[edge.target]++;
    source[edge.target] = edge.source;
    readers[edge.source]++;
    if (edge.adds) adding[edge.source]++;
    else if (target.kind !== "fuse") working[edge.source]++;
  }
  const isAside = (place, item) => {
    if (item.minor) return true;
    const beside = sources[place] === 1 && working[source[place]] > (item.kind === "fuse" ? 0 : 1);
    return beside && readers[place] > 0 && readers[place] === adding[place];
  };
  const taken = new Map();
  for (const place of order) {
    const item = items[place];
    const key = (item.level + 4096) * 2 ** 24 + item.column;
    let used = taken.get(key);
    if (!used) taken.set(key, (used = []));
    const wanted = sources[place] === 1 ? items[source[place]].lane : 0;
    const least = isAside(place, item) ? 1 : 0;
    item.lane = wanted >= least && !used.includes(wanted) ? wanted : least;
    while (used.includes(item.lane)) item.lane++;
    used.push(item.lane);
  }
}

// The places of the items from left to right, in the order of the graph within a column.
function byColumn(items) {
  const keys = Float64Array.from(items, (item, place) => item.column * 2 ** 24 + place).sort();
  return Array.from(keys, (key) => key % 2 ** 24);
}
