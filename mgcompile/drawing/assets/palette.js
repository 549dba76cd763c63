// Colours. Cells keep their colour-blind safe hues in the dark; whatever a colour says is said by a word, a letter,
// a dash or an arrow too.

const THEMES = {
  light: {
    paper: "#ffffff",
    ink: "#1d1f21",
    muted: "#5f6368",
    faint: "#e6e6e3",
    band: "#f4f4f1",
    rule: "#a5a5a5",
    selected: "#111111",
    sees: "#0b5cad",
    seen: "#b3410b",
    found: "#7a0f7a",
    none: "#f1f1ee",
    ramp: ["#f3f0e2", "#c5dfbd", "#6fb9ab", "#2b7c93", "#173f66"],
  },
  dark: {
    paper: "#15181b",
    ink: "#e9eaea",
    muted: "#a3a9ae",
    faint: "#2b3035",
    band: "#1d2125",
    rule: "#6b7278",
    selected: "#ffffff",
    sees: "#79b8ff",
    seen: "#ffab70",
    found: "#e49bff",
    none: "#24292e",
    ramp: ["#26303a", "#27566b", "#2f8f8b", "#8fcf8a", "#f4f0b8"],
  },
};

function channels(colour) {
  return [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
}

function mix(one, other, share) {
  const [a, b] = [channels(one), channels(other)];
  const parts = a.map((part, place) => Math.round(part + (b[place] - part) * share));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

// Black or white, whichever is easier to read on the colour (relative luminance as WCAG defines it).
function inkOn(colour) {
  const [red, green, blue] = channels(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.19 ? "#111111" : "#ffffff";
}

// The colours of a cell of a colour: its front, the two sides behind it, its outline, what is written on it.
function shades(base, dark, plain) {
  const front = plain ? base : mix(base, dark ? "#15181b" : "#ffffff", 0.42);
  return {
    front,
    upper: mix(front, "#ffffff", dark ? 0.16 : 0.45),
    side: mix(front, "#000000", dark ? 0.3 : 0.2),
    line: mix(base, dark ? "#ffffff" : "#000000", 0.5),
    text: inkOn(front),
  };
}

function makePalette(look, dark) {
  const theme = dark ? THEMES.dark : THEMES.light;
  const kinds = {};
  for (const [kind, [, colour]] of Object.entries(look.kinds)) {
    const base = kind === "fuse" ? theme.paper : dark && kind === "shape" ? "#9a9a9a" : colour;
    kinds[kind] = kind === "fuse" ? { ...shades(base, dark, true), line: theme.ink, text: theme.ink } : shades(base, dark);
  }
  const lines = {};
  for (const [kind, [, colour, width, dash]] of Object.entries(look.lines)) {
    const visible = kind === "same" ? theme.ink : dark ? mix(colour, "#ffffff", 0.45) : colour;
    lines[kind] = { colour: visible, width, dash };
  }
  const steps = Array.from({ length: 24 }, (_, step) => shades(rampColour(theme.ramp, step / 23), dark, true));
  return { ...theme, dark, kinds, lines, steps, nothing: shades(theme.none, dark, true) };
}

function rampColour(stops, share) {
  const place = Math.min(stops.length - 2, Math.floor(share * (stops.length - 1)));
  return mix(stops[place], stops[place + 1], share * (stops.length - 1) - place);
}

// The range of a figure over what is visible; steps go with its logarithm, for figures span decades.
function valueRange(items) {
  const values = items.map((item) => item.value).filter((value) => value !== null && value > 0);
  if (!values.length) return { least: 1, most: 1 };
  return { least: values.reduce((a, b) => Math.min(a, b)), most: values.reduce((a, b) => Math.max(a, b)) };
}

function itemShades(palette, item, range) {
  if (!range) return palette.kinds[item.kind] ?? palette.nothing;
  if (item.value === null || item.value <= 0) return palette.nothing;
  const span = Math.log(range.most / range.least);
  const share = span > 0 ? Math.log(item.value / range.least) / span : 1;
  return palette.steps[Math.round(share * (palette.steps.length - 1))];
}
