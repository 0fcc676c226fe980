"use strict";
/* Shows where each head looks: all heads small, one of them large, as lines and as a table.

   box: holds elements of the classes heads, chosen, said, lines and map; they are filled anew.
   told: the pieces (T) and their weights [layer][head][from][at].
   first: [layer, head], from 0, that is shown at first. */
function showAttention(box, { pieces, weights }, first = [0, 0]) {
  const part = (name) => box.querySelector(`.${name}`);
  const SVG = "http://www.w3.org/2000/svg";
  const per = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
  const shown = (piece) => `"${piece}"`;
  const color = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();

  function make(parent, name, attributes = {}, text = "") {
    const node = ["svg", "line", "text", "g", "rect"].includes(name)
      ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    parent.append(node);
    return node;
  }

  function thumbnail(canvas, rows) {
    canvas.width = canvas.height = rows.length;
    const pen = canvas.getContext("2d");
    pen.fillStyle = color;
    rows.forEach((row, y) => row.forEach((weight, x) => {
      pen.globalAlpha = Math.sqrt(weight);
      pen.fillRect(x, y, 1, 1);
    }));
  }

  function drawHeads() {
    weights.forEach((heads, layer) => {
      const row = make(part("heads"), "div");
      make(row, "span", {}, `layer ${layer + 1}`);
      heads.forEach((rows, head) => {
        const button = make(row, "button", {
          type: "button", "aria-pressed": "false", "data-head": `${layer}.${head}`,
          "aria-label": `layer ${layer + 1}, head ${head + 1}`,
        });
        thumbnail(make(button, "canvas"), rows);
        button.addEventListener("click", () => choose(layer, head));
      });
    });
  }

  function say(layer, head, from) {
    const row = weights[layer][head][from];
    const order = row.map((weight, at) => [weight, at]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const most = order.filter(([weight]) => weight >= 0.01)
      .map(([weight, at]) => `${shown(pieces[at])} ${per(weight)}`).join(", ");
    const words = `Layer ${layer + 1}, head ${head + 1}: at ${shown(pieces[from])} it looks at ${most}.`;
    if (part("said").textContent !== words) part("said").textContent = words; // it is read aloud
  }

  function drawLines(layer, head) {
    const rows = weights[layer][head], step = 22;
    const longest = Math.max(...pieces.map((piece) => piece.length));
    const side = Math.min(24, longest) * 8 + 12, left = side, right = side + 100;
    const width = right + side;
    part("lines").replaceChildren();
    const svg = make(part("lines"), "svg", {
      width, height: step * pieces.length + 10, viewBox: `0 0 ${width} ${step * pieces.length + 10}`,
      role: "group", "aria-label": "pieces, and lines to what each looks at",
    });
    const y = (at) => step * at + 18;
    const lines = make(svg, "g");
    const draw = (only) => {
      lines.replaceChildren();
      rows.forEach((row, from) => row.forEach((weight, at) => {
        if (weight < 0.02 || (only !== null && only !== from)) return;
        make(lines, "line", {
          x1: left, y1: y(from) - 4, x2: right, y2: y(at) - 4,
          "stroke-opacity": weight, "stroke-width": 1 + 3 * weight,
        });
      }));
    };
    pieces.forEach((piece, at) => {
      const group = make(svg, "g", {
        tabindex: "0", role: "button", "data-from": at, "aria-label": `at ${piece}`,
      });
      make(group, "text", { x: left - 6, y: y(at), "text-anchor": "end" }, piece);
      make(svg, "text", { x: right + 6, y: y(at) }, piece);
      for (const event of ["mouseenter", "focus"]) {
        group.addEventListener(event, () => { draw(at); say(layer, head, at); });
      }
      for (const event of ["mouseleave", "blur"]) group.addEventListener(event, () => draw(null));
    });
    draw(null);
  }

  function drawMap(layer, head) {
    part("map").replaceChildren();
    const table = make(part("map"), "table");
    const top = make(make(table, "thead"), "tr");
    make(top, "td");
    pieces.forEach((piece) => make(top, "th", { scope: "col" }, piece));
    const body = make(table, "tbody");
    weights[layer][head].forEach((row, from) => {
      const line = make(body, "tr");
      make(line, "th", { scope: "row" }, pieces[from]);
      row.forEach((weight, at) => {
        const cell = make(line, "td", { title: `${pieces[from]} → ${pieces[at]}: ${per(weight)}` });
        cell.style.background =
          `color-mix(in srgb, var(--accent) ${Math.round(100 * Math.sqrt(weight))}%, var(--card))`;
      });
      line.addEventListener("mouseenter", () => say(layer, head, from));
    });
  }

  function choose(layer, head) {
    for (const button of box.querySelectorAll(".heads button")) {
      button.setAttribute("aria-pressed", String(button.dataset.head === `${layer}.${head}`));
    }
    part("chosen").textContent = `Layer ${layer + 1}, head ${head + 1}`;
    drawLines(layer, head);
    drawMap(layer, head);
    say(layer, head, pieces.length - 1);
  }

  part("heads").replaceChildren();
  drawHeads();
  choose(...first);
}
