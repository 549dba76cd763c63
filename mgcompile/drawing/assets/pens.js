// Two pens with the same strokes: one draws on a canvas, one writes SVG. What is drawn is decided elsewhere.

const FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";

class CanvasPen {
  constructor(context, scale, plain = false) {
    this.context = context;
    this.scale = scale;
    this.plain = plain; // straight lines in place of curves
  }

  begin() {}

  end() {}

  fade(alpha) {
    this.context.globalAlpha = alpha;
  }

  box(x, y, width, height, fill, stroke, line, dash) {
    const { context } = this;
    if (fill) {
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    }
    if (stroke) {
      this.stroke(stroke, line, dash);
      context.strokeRect(x, y, width, height);
    }
  }

  stroke(colour, width, dash) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = width;
    this.context.setLineDash(dash ?? []);
  }

  polygon(points, fill, stroke, line) {
    const { context } = this;
    context.beginPath();
    context.moveTo(points[0], points[1]);
    for (let place = 2; place < points.length; place += 2) context.lineTo(points[place], points[place + 1]);
    context.closePath();
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (stroke) {
      this.stroke(stroke, line);
      context.stroke();
    }
  }

  circle(x, y, radius, fill, stroke, line, dash) {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (stroke) {
      this.stroke(stroke, line, dash);
      context.stroke();
    }
  }

  // All ways of one look at once: far fewer calls than one by one.
  ways(ways, colour, width, dash) {
    const { context } = this;
    this.stroke(colour, width, dash);
    context.beginPath();
    for (const way of ways) {
      context.moveTo(way[0], way[1]);
      const last = way.length - 2;
      if (this.plain) {
        for (let place = 6; place <= last; place += 6) context.lineTo(way[place], way[place + 1]);
        continue;
      }
      for (let place = 2; place < last; place += 6) {
        context.bezierCurveTo(way[place], way[place + 1], way[place + 2], way[place + 3], way[place + 4], way[place + 5]);
      }
    }
    context.stroke();
  }

  heads(heads, colour) {
    const { context } = this;
    context.fillStyle = colour;
    context.beginPath();
    for (const points of heads) {
      context.moveTo(points[0], points[1]);
      context.lineTo(points[2], points[3]);
      context.lineTo(points[4], points[5]);
    }
    context.fill();
  }

  text(x, y, text, size, colour, anchor = "middle", bold = false) {
    if (size * this.scale < 5) return;
    const { context } = this;
    const font = `${bold ? "bold " : ""}${size}px ${FONT}`;
    if (this.font !== font) context.font = this.font = font;
    context.textAlign = anchor === "middle" ? "center" : anchor;
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }
}

class SvgPen {
  constructor() {
    this.parts = [];
    this.opacity = "";
    this.scale = 1;
  }

  // A group for an item, with its tooltip.
  begin(item) {
    const data = ` class="cell" data-name="${escapeText(item.name)}" data-level="${item.level}"`;
    this.parts.push(`<g${data}${this.opacity}><title>${escapeText(itemTitle(item))}</title>`);
    this.inner = this.opacity;
    this.opacity = "";
  }

  end() {
    this.parts.push("</g>");
    this.opacity = this.inner;
  }

  fade(alpha) {
    this.opacity = alpha < 1 ? ` opacity="${alpha}"` : "";
  }

  put(element, fill, stroke, width, dash) {
    const dashes = dash?.length ? ` stroke-dasharray="${dash.map(short).join(" ")}"` : "";
    const line = stroke ? ` stroke="${stroke}" stroke-width="${short(width)}"${dashes}` : "";
    this.parts.push(`<${element} fill="${fill || "none"}"${line}${this.opacity}/>`);
  }

  box(x, y, width, height, fill, stroke, line, dash) {
    this.put(`rect x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}"`, fill, stroke, line, dash);
  }

  polygon(points, fill, stroke, line) {
    this.put(`polygon points="${points.map(short).join(" ")}" stroke-linejoin="round"`, fill, stroke, line);
  }

  circle(x, y, radius, fill, stroke, line, dash) {
    this.put(`circle cx="${short(x)}" cy="${short(y)}" r="${short(radius)}"`, fill, stroke, line, dash);
  }

  ways(ways, colour, width, dash) {
    for (const way of ways) {
      const [x, y, ...rest] = way.map(short);
      this.put(`path d="M${x} ${y}C${rest.join(" ")}"`, "", colour, width, dash);
    }
  }

  heads(heads, colour) {
    for (const points of heads) this.polygon(points, colour);
  }

  text(x, y, text, size, colour, anchor = "middle", bold = false) {
    const place = `x="${short(x)}" y="${short(y)}" font-size="${short(size)}" fill="${colour}"`;
    const weight = bold ? ' font-weight="bold"' : "";
    this.parts.push(`<text ${place} text-anchor="${anchor}"${weight}${this.opacity}>${escapeText(text)}</text>`);
  }

  document(left, top, width, height, title, paper) {
    const box = [left, top, width, height].map(short);
    return [
      `<svg xmlns="http://www.w3.org/2000/svg" width="${box[2]}" height="${box[3]}" viewBox="${box.join(" ")}" font-family="${FONT}" role="img">`,
      `<title>${escapeText(title)}</title>`,
      paper ? `<rect x="${box[0]}" y="${box[1]}" width="${box[2]}" height="${box[3]}" fill="${paper}"/>` : "",
      ...this.parts,
      "</svg>",
    ].join("\n");
  }
}

function short(number) {
  return String(Math.round(number * 100) / 100);
}

// XML has no place for control characters, escaped or not.
function escapeText(text) {
  return text
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\ufffe\uffff]/g, "\ufffd")
    .replace(/&/g, "&amp;")
    .replace(/</g, "&lt;")
    .replace(/>/g, "&gt;")
    .replace(/"/g, "&quot;");
}
