// What the page was told, with the ways through it: cells, layers, who reads whom. Nothing here has a place.

function readModel(data) {
  const count = data.cells.name.length;
  const layers = readLayers(data);
  const model = {
    name: data.name,
    size: data.size,
    facts: data.facts,
    levels: data.levels.map(([level, height, width]) => ({ level, size: [height, width] })),
    outputs: new Map(),
    look: data.look,
    start: data.start,
    measures: data.measures,
    count,
    layers,
    roots: layers.filter((layer) => layer.parent === null),
    layer: data.cells.layer,
    kind: data.cells.kind,
    level: data.cells.level,
    column: data.cells.column,
    minor: data.cells.minor,
    inputs: data.cells.inputs,
    readers: Array.from({ length: count }, () => []),
    names: data.cells.name.map((name, cell) =>
      name.startsWith(".") ? layers[data.cells.layer[cell]].path + name : name,
    ),
    label: data.cells.label.map((place) => data.labels[place][0]),
    symbol: data.cells.label.map((place) => data.labels[place][1]),
    shape: data.cells.shape.map((place) => data.shapes[place]),
    origin: data.cells.origin.map((place) => data.origins[place]),
  };
  model.added = new Set(data.added.map(([source, target]) => source * count + target));
  model.inputs.forEach((sources, cell) => sources.forEach((source) => model.readers[source].push(cell)));
  data.outputs.forEach(([name, cell]) => model.outputs.set(cell, [...(model.outputs.get(cell) ?? []), name]));
  model.layer.forEach((place, cell) => layers[place].own.push(cell));
  for (let place = layers.length - 1; place >= 0; place--) gather(model, layers[place]);
  layers.forEach((layer, place) => (layer.twins = readTwins(layer, data.layers[place][3])));
  model.byName = new Map(model.names.map((name, cell) => [name, cell]));
  model.byPath = new Map(layers.map((layer) => [layer.path, layer]));
  return model;
}

function readLayers(data) {
  const layers = [];
  data.layers.forEach(([parent, name, repeats, , path], number) => {
    const above = parent < 0 ? null : layers[parent];
    const layer = { number, parent: above, name, repeats, children: [], own: [], cells: [], depth: 0 };
    layer.path = path || (above ? `${above.path}.${name}` : name);
    layer.depth = above ? above.depth + 1 : 0;
    above?.children.push(layer);
    layers.push(layer);
  });
  return layers;
}

// All cells of a layer, whether it has parts to show, and its height: how many storeys of layers that hold several
// convolutions at one level it has. What an exchange does on its edges is a part of the exchange.
function gather(model, layer) {
  const parts = [layer.own, ...layer.children.map((child) => child.cells)];
  layer.cells = parts.flat().sort((one, other) => one - other);
  const levels = new Set(layer.cells.map((cell) => model.level[cell]));
  layer.opens = layer.cells.length > levels.size;
  const heavy = new Map();
  for (const cell of layer.cells) {
    if (isHeavy(model.kind[cell]) && !model.minor[cell]) heavy.set(model.level[cell], (heavy.get(model.level[cell]) ?? 0) + 1);
  }
  const inner = Math.max(0, ...layer.children.map((child) => child.height));
  layer.height = Math.max(0, ...heavy.values()) > 1 ? inner + 1 : 0;
}

function isHeavy(kind) {
  return kind === "conv" || kind === "linear" || kind === "custom";
}

// For each part of a run but the first: a map from its cells to those of the first that they equal.
function readTwins(layer, given) {
  if (layer.repeats === 1) return [];
  const [first, ...others] = layer.children;
  return others.map((part, number) => {
    const twins = given.length ? given[number] : first.cells;
    return new Map(part.cells.map((cell, place) => [cell, twins[place]]));
  });
}

// Everything that the cells can see (`next` = model.inputs), or that sees them (model.readers); not the cells.
function reach(next, cells) {
  const seen = new Set(cells);
  const stack = [...cells];
  while (stack.length) {
    for (const cell of next[stack.pop()]) {
      if (!seen.has(cell)) {
        seen.add(cell);
        stack.push(cell);
      }
    }
  }
  cells.forEach((cell) => seen.delete(cell));
  return seen;
}

// The figure of several cells: their sum, or the largest; null where none has one.
function figure(measure, cells) {
  let total = null;
  for (const cell of cells) {
    const value = measure.values[cell];
    if (value === null) continue;
    if (total === null) total = value;
    else total = measure.adds ? total + value : Math.max(total, value);
  }
  return total;
}

const DECIMAL = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const BINARY = [[2 ** 40, "Ti"], [2 ** 30, "Gi"], [2 ** 20, "Mi"], [2 ** 10, "Ki"]];

// A figure for reading: two digits behind the point, or with `short` three digits in all.
function figureText(measure, value, short = false) {
  if (value === null) return "–";
  const [step, prefix] = (measure.binary ? BINARY : DECIMAL).find(([least]) => Math.abs(value) >= least) ?? [1, ""];
  const scaled = value / step;
  let number = String(scaled);
  if (step > 1) number = scaled.toFixed(short ? Math.max(0, 2 - Math.floor(Math.log10(Math.abs(scaled)))) : 2);
  else if (!Number.isInteger(scaled)) number = scaled.toFixed(short ? 1 : 2);
  const unit = `${prefix}${measure.unit}`;
  if (short) return `${number}${measure.binary || measure.unit.length <= 2 ? unit : prefix}`;
  return unit ? `${number} ${unit}` : number;
}

function sizeText(size) {
  return size.join("×");
}

// Features of a vector; channels and size of a grid.
function shapeText(shape) {
  return shape.length === 1 ? `${shape[0]} features` : `${shape[0]} × ${sizeText(shape.slice(1))}`;
}
