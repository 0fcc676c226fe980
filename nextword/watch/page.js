"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const known = JSON.parse(at("known").textContent);
  const live = !known.data;
  const state = { run: known.run, info: null, curve: null, moments: [], beside: null, besideCurve: null, piece: -1, taught: null };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const number = (value, digits = 3) => value == null ? "–" : Number.isInteger(value) && Math.abs(value) < 1e9 && digits > 2 ? value.toLocaleString("en") : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(2) : Number(value.toPrecision(digits + 1)).toLocaleString("en");
  const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const odds = (p) => p > 0.99995 && p < 1 ? ">0.9999" : p < 0.001 ? p.toExponential(1) : p.toFixed(4);
  // What controls a line or cannot be seen is shown as a sign, as everywhere in this program.
  const signs = (text) => [...text].map((c) => {
    const code = c.codePointAt(0);
    if (c === "\n") return "⏎";
    if (code < 32) return String.fromCodePoint(0x2400 + code);
    if (code === 127) return "␡";
    if ((code > 127 && code < 160) || /[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/.test(c)) return "�";
    return c;
  }).join("");
  const make = (tag, words, kind) => {
    const made = document.createElement(tag);
    if (words !== undefined) made.textContent = words;
    if (kind) made.className = kind;
    return made;
  };
  const trouble = (words) => { at("trouble").textContent = words; };

  // ---- what the server knows

  const get = async (path, body, headers = {}) => {
    const asked = body ? { method: "POST", body: JSON.stringify(body), headers } : {};
    const answered = await fetch(path, asked);
    const told = await answered.json();
    if (!answered.ok) throw new Error(told.error.message);
    return told;
  };
  const path = (what, name = state.run) => `/api/${what}/${encodeURIComponent(name)}`;

  // ---- charts: at most some thousand points, drawn anew within a frame

  const charts = [];
  class Chart {
    constructor(id, said, { log = false, unit = "" } = {}) {
      this.canvas = at(id);
      this.said = at(said);
      this.title = this.canvas.getAttribute("aria-label");
      this.lines = [];
      this.rules = [];
      this.marks = [];
      this.at = null;
      this.log = log;
      this.unit = unit;
      this.waiting = false;
      charts.push(this);
      new ResizeObserver(() => this.ask()).observe(this.canvas);
      for (const way of ["pointermove", "pointerdown"]) {
        this.canvas.addEventListener(way, (event) => { this.at = this.nearest(event.offsetX); this.ask(); });
      }
      // A finger has left before its tap is known; what it pointed at stays.
      this.canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") { this.at = null; this.ask(); } });
      this.canvas.addEventListener("keydown", (event) => {
        const line = this.lines[0];
        if (!line || !line.x.length) return;
        const moves = { ArrowRight: 1, ArrowLeft: -1, PageDown: 20, PageUp: -20, Home: -1e9, End: 1e9 };
        if (!(event.key in moves)) return;
        event.preventDefault();
        const here = this.at === null ? line.x.length - 1 : this.at;
        this.at = Math.min(Math.max(here + moves[event.key], 0), line.x.length - 1);
        this.ask();
      });
    }
    ask() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.draw(); });
    }
    across(value) { return this.log ? Math.log2(Math.max(value, this.smallest)) : value; }
    nearest(place) {
      const line = this.lines[0];
      if (!line || !line.x.length || !this.frame) return null;
      const value = this.frame.left + (place - this.frame.x0) / (this.frame.x1 - this.frame.x0) * (this.frame.right - this.frame.left);
      let low = 0, high = line.x.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.across(line.x[middle]) < value) low = middle + 1; else high = middle;
      }
      return low;
    }
    draw() {
      const { canvas } = this, scale = devicePixelRatio || 1;
      const wide = canvas.clientWidth, tall = canvas.clientHeight;
      if (!wide) return;
      if (canvas.width !== Math.round(wide * scale)) canvas.width = Math.round(wide * scale);
      if (canvas.height !== Math.round(tall * scale)) canvas.height = Math.round(tall * scale);
      const pen = canvas.getContext("2d");
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      pen.clearRect(0, 0, wide, tall);
      pen.font = "12px system-ui, sans-serif";
      const soft = css("--soft"), grid = css("--line");
      pen.fillStyle = soft;
      pen.textAlign = "left";
      pen.fillText(this.title, 12, 18);
      const xs = this.lines.flatMap((line) => line.x).filter((x) => x > 0 || !this.log);
      if (!xs.length) {
        pen.fillText("nothing yet", 12, tall / 2);
        return;
      }
      this.smallest = Math.min(...xs);
      const ys = this.lines.flatMap((line) => [...(line.least || []), ...(line.most || []), ...line.y]).filter((y) => y != null);
      const rules = this.rules.filter((rule) => rule.y != null);
      let low = Math.min(...ys, ...rules.filter((rule) => rule.held).map((rule) => rule.y));
      let high = Math.max(...ys, ...rules.filter((rule) => rule.held).map((rule) => rule.y));
      if (!(high > low)) high = low + 1;
      low -= (high - low) * 0.05;
      high += (high - low) * 0.06; // room for a level line's name below the title
      const frame = this.frame = { left: this.across(this.smallest), right: this.across(Math.max(...xs)), x0: 58, x1: wide - 14, y0: tall - 28, y1: 30 };
      if (frame.right <= frame.left) frame.right = frame.left + 1;
      const X = (value) => frame.x0 + (this.across(value) - frame.left) / (frame.right - frame.left) * (frame.x1 - frame.x0);
      const Y = (value) => frame.y0 + (value - low) / (high - low) * (frame.y1 - frame.y0);
      const clear = (value) => Math.min(Math.max(Y(value), frame.y1 - 8), frame.y0);
      pen.strokeStyle = grid;
      pen.textAlign = "right";
      const step = 10 ** Math.floor(Math.log10((high - low) / 3)), by = [1, 2, 5, 10].map((n) => n * step).find((n) => (high - low) / n < 6);
      for (let value = Math.ceil(low / by) * by; value <= high; value += by) {
        pen.beginPath(); pen.moveTo(frame.x0, Y(value)); pen.lineTo(frame.x1, Y(value)); pen.stroke();
        pen.fillText(number(Math.abs(value) < by / 1e6 ? 0 : value, 2), frame.x0 - 8, Y(value) + 4);
      }
      pen.textAlign = "center";
      for (const share of wide < 420 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]) {
        const value = frame.left + share * (frame.right - frame.left);
        pen.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
        pen.fillText(short.format(this.log ? 2 ** value : value), frame.x0 + share * (frame.x1 - frame.x0), tall - 9);
      }
      pen.textAlign = "right";
      pen.setLineDash([2, 4]);
      let last = -1e9;
      for (const rule of [...rules].sort((one, two) => two.y - one.y)) {
        if (rule.y < low || rule.y > high) continue;
        pen.strokeStyle = soft;
        pen.beginPath(); pen.moveTo(frame.x0, Y(rule.y)); pen.lineTo(frame.x1, Y(rule.y)); pen.stroke();
        const place = Y(rule.y) - 4;
        if (place - last > 13) { pen.fillText(`${rule.name} ${number(rule.y, 2)}`, frame.x1 - 2, place); last = place; }
      }
      pen.setLineDash([]);
      for (const line of [...this.lines].reverse()) {
        const color = css(line.color);
        if (line.least) {
          pen.fillStyle = color; pen.globalAlpha = 0.18; pen.beginPath();
          line.x.forEach((x, i) => { if (line.most[i] != null) pen.lineTo(X(x), clear(line.most[i])); });
          for (let i = line.x.length - 1; i >= 0; i--) if (line.least[i] != null) pen.lineTo(X(line.x[i]), clear(line.least[i]));
          pen.fill(); pen.globalAlpha = 1;
        }
        pen.strokeStyle = color; pen.lineWidth = line.wide || 2; pen.lineJoin = "round";
        pen.setLineDash(line.dash || []); pen.beginPath();
        let down = false;
        line.x.forEach((x, i) => {
          if (line.y[i] == null) { down = false; return; }
          if (down) pen.lineTo(X(x), clear(line.y[i])); else pen.moveTo(X(x), clear(line.y[i]));
          down = true;
        });
        pen.stroke(); pen.setLineDash([]); pen.lineWidth = 1;
        if (line.points) {
          pen.fillStyle = color;
          line.x.forEach((x, i) => { if (line.y[i] != null) { pen.beginPath(); pen.arc(X(x), clear(line.y[i]), 3.2, 0, 7); pen.fill(); } });
        }
      }
      pen.fillStyle = css("--accent");
      for (const x of this.marks) {
        const place = X(x);
        pen.beginPath(); pen.moveTo(place, frame.y1 - 2); pen.lineTo(place - 5, frame.y1 - 11); pen.lineTo(place + 5, frame.y1 - 11); pen.fill();
      }
      const main = this.lines[0];
      if (this.at !== null && main && this.at < main.x.length) {
        const x = main.x[this.at];
        pen.strokeStyle = soft; pen.beginPath(); pen.moveTo(X(x), frame.y1); pen.lineTo(X(x), frame.y0); pen.stroke();
        const told = this.lines.map((line) => {
          let best = 0;
          for (let i = 1; i < line.x.length; i++) if (Math.abs(line.x[i] - x) < Math.abs(line.x[best] - x)) best = i;
          return line.x.length ? `${line.name} ${number(line.y[best])}${this.unit}` : "";
        });
        const words = `at ${number(x)} ${this.word || "steps"}: ${told.filter(Boolean).join(", ")}`;
        if (this.said.textContent !== words) this.said.textContent = words;
      }
    }
  }
  const loss = new Chart("loss", "loss-said");
  const rate = new Chart("rate", "small-said"), norm = new Chart("norm", "small-said"), speed = new Chart("speed", "small-said");
  const chance = new Chart("odds", "odds-said");

  const places = (info, curve) => {
    const over = at("across").value, plan = info.plan || {};
    const tokens = (plan.rows || 1) * (plan.context || 1);
    if (over === "step") return curve.step;
    if (over === "seconds") return curve.seconds.mean;
    return curve.step.map((step) => step * tokens * (over === "flops" ? info.flops_per_token || 1 : 1));
  };
  const place = (info, curve, step) => {
    const over = at("across").value, plan = info.plan || {};
    const tokens = (plan.rows || 1) * (plan.context || 1);
    if (over !== "seconds") return over === "step" ? step : step * tokens * (over === "flops" ? info.flops_per_token || 1 : 1);
    let best = 0;
    curve.step.forEach((s, i) => { if (s <= step) best = i; });
    return curve.seconds.mean[best] || 0;
  };
  const curves = (info, curve, name, color) => {
    const x = places(info, curve);
    const held = info.evaluations.map((one) => [one.step, one.partial_nats_per_token ?? one.nats_per_token]).filter((one) => one[1] != null);
    return [
      { name: `${name}training`, x, y: curve.loss.mean, least: curve.loss.least, most: curve.loss.most, color },
      { name: `${name}held out`, x: held.map(([step]) => place(info, curve, step)), y: held.map((one) => one[1]), color: color === "--accent" ? "--ink" : "--other", dash: [5, 4], wide: 1.6, points: true },
    ];
  };
  const paint = () => {
    const { info, curve } = state;
    if (!info || !curve) return;
    const over = at("across"), word = over.selectedOptions[0].textContent;
    loss.log = at("log").checked;
    loss.lines = curves(info, curve, "", "--accent");
    if (state.beside && state.besideCurve) loss.lines.push(...curves(state.beside, state.besideCurve, `${state.beside.name}: `, "--soft"));
    loss.rules = info.ruler.map((mark) => ({ name: mark.name, y: mark.nats }));
    if (info.floor != null) loss.rules.push({ name: "least possible", y: info.floor, held: true });
    loss.marks = info.spikes.map((step) => place(info, curve, step));
    const x = places(info, curve);
    for (const [chart, name, band] of [[rate, "rate_factor", false], [norm, "gradient_norm", true], [speed, "tokens_per_second", true]]) {
      const column = curve[name];
      chart.lines = [{ name: chart.title.toLowerCase(), x, y: column.mean, color: "--accent", wide: 1.6, ...(band ? { least: column.least, most: column.most } : {}) }];
      chart.marks = chart === norm ? loss.marks : [];
    }
    for (const chart of [loss, rate, norm, speed]) { chart.word = word; chart.ask(); }
  };

  // ---- what is said in words

  const tell = () => {
    const { info } = state, latest = info.latest || {};
    at("title").textContent = `${info.name}: ${info.running ? (info.paused ? "paused" : "learning now") : info.ended || (latest.step && latest.step >= info.plan.steps) ? "how it learned" : "not finished"}`;
    document.title = `nextword: ${info.name}`;
    const steps = info.plan && info.plan.steps ? ` of ${number(info.plan.steps, 9)}` : "";
    const held = info.evaluations.filter((one) => one.nats_per_token != null).at(-1);
    const parts = [`${number(info.parameters)} weights`];
    if (info.entries) parts.push(`${number(info.entries)} pieces`);
    if (latest.step != null) parts.push(`step ${number(latest.step, 9)}${steps}`, `loss ${number(latest.loss)} nats`);
    if (held) parts.push(`on text it never saw ${number(held.nats_per_token)} nats a piece, as unsure as among ${number(Math.exp(held.nats_per_token), 2)}`);
    at("state").textContent = parts.join(" · ");
    at("ask-section").hidden = !live || Boolean(info.cannot_ask);
    at("orders").hidden = !live || !info.running;
    at("pause").dataset.order = info.paused ? "go on" : "pause";
    at("pause").textContent = info.paused ? "Go on" : "Pause";
    at("spikes").replaceChildren(...info.spikes.slice(-6).map((step) => {
      const button = make("button", `spike at ${number(step, 9)}`);
      button.type = "button";
      button.addEventListener("click", () => look(step));
      return button;
    }));
    at("damaged").textContent = (info.writer ? `Another version wrote it, ${info.writer}. ` : "") + (info.damaged ? `${info.damaged} damaged lines of it were left out.` : "");
    const written = info.evaluations.filter((one) => one.sample).slice(-8).reverse();
    at("samples").replaceChildren(...written.map((one) => {
      const box = make("div", undefined, "sample");
      box.append(make("b", `step ${number(one.step, 9)}`), signs(one.sample));
      return box;
    }));
    if (!written.length) at("samples").append(make("p", "Nothing yet: it writes at each evaluation.", "soft"));
  };

  // ---- heat

  const bar = (name, share, words) => {
    const row = make("li"), line = make("div"), track = make("span", undefined, "bar"), inside = make("span");
    inside.style.width = `${100 * share}%`;
    track.append(inside);
    line.append(make("span", name, "word"), track, make("span", words, "p"));
    row.append(line);
    return row;
  };
  const heated = (span, nats) => {
    const share = Math.sqrt(Math.min(Math.max(nats / known.hottest, 0), 1));
    const behind = known.schemes.map(({ cold, hot }) => `rgb(${cold.map((part, which) => Math.floor(part + share * (hot[which] - part) + 0.5))})`);
    const [light, dark] = known.schemes.map(({ ink }) => `rgb(${ink})`);
    span.style.background = behind[0];
    span.style.background = `light-dark(${behind})`;
    span.style.color = light;
    span.style.color = `light-dark(${light},${dark})`;
  };
  const pieces = (box, list, onFocus) => {
    const had = [...box.children].indexOf(document.activeElement);
    const spans = list.map(({ piece, nats, title }, i) => {
      const span = make("span", signs(piece), "piece");
      heated(span, nats);
      span.title = title;
      span.tabIndex = i === Math.max(had, 0) ? 0 : -1;
      const chosen = () => onFocus(i, title);
      span.addEventListener("focus", chosen);
      span.addEventListener("mouseenter", chosen);
      span.addEventListener("click", () => span.focus());
      span.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: list.length - 1 }[event.key];
        if (to === undefined || !box.children[to]) return;
        event.preventDefault();
        for (const other of box.children) other.tabIndex = -1;
        box.children[to].tabIndex = 0;
        box.children[to].focus();
      });
      return span;
    });
    box.replaceChildren(...spans);
    if (had >= 0 && spans[had]) spans[had].focus();
  };
  const expected = (judged, i) => [[judged.likeliest[i], judged.likeliest_probability[i]], ...((judged.others || [])[i] || [])];
  const thenAndNow = (piece, sides) => {
    const most = Math.max(...sides.flatMap(([, list]) => list.map(([, p]) => p)));
    at("then-now").hidden = false;
    at("then-now").replaceChildren(...sides.map(([step, list]) => {
      const box = make("div"), bars = make("ol", undefined, "bars");
      bars.replaceChildren(...list.map(([name, p]) => {
        const row = bar(`“${signs(name)}”`, p / most, odds(p));
        if (name === piece) row.classList.add("right");
        return row;
      }));
      box.append(make("h3", `It expected, at step ${number(step, 9)}`), bars);
      return box;
    }));
  };
  const showMoment = () => {
    const { info, moments } = state;
    at("pins-section").hidden = !info.pins.length || !moments.length;
    if (at("pins-section").hidden) return;
    const slider = at("moment"), which = Number(at("pin").value) || 0;
    const moment = moments[Math.min(Number(slider.value), moments.length - 1)], now = moments.at(-1);
    const pin = info.pins[which], one = moment.pins[which], last = now.pins[which];
    if (!one || !last) return;
    const mean = one.nats.reduce((sum, nats) => sum + nats, 0) / one.nats.length;
    at("moment-said").textContent = `Step ${number(moment.step, 9)}: ${mean.toFixed(3)} nats a piece on average. Point at a piece, or go along with the arrow keys.`;
    slider.setAttribute("aria-valuetext", `step ${moment.step}, loss ${mean.toFixed(2)} nats`);
    pieces(at("heat"), pin.pieces.map((piece, i) => ({
      piece, nats: one.nats[i],
      title: `“${signs(piece)}”: P ${odds(Math.exp(-one.nats[i]))} at step ${number(moment.step, 9)}, ${odds(Math.exp(-last.nats[i]))} at step ${number(now.step, 9)}`,
    })), (i) => { state.piece = i; tellPiece(); showOdds(); });
    const tellPiece = () => {
      const i = state.piece, chosen = i >= 0 && i < pin.pieces.length;
      at("heat-said").textContent = chosen ? at("heat").children[i].title : "";
      if (chosen) thenAndNow(pin.pieces[i], [[moment.step, expected(one, i)], [now.step, expected(last, i)]]);
      else at("then-now").hidden = true;
    };
    tellPiece();
    showOdds();
  };
  const showOdds = () => {
    const { info, moments } = state, which = Number(at("pin").value) || 0, pin = info.pins[which];
    if (!pin) return;
    const worked = pin.pieces.findIndex((piece) => piece === " make");
    const i = state.piece >= 0 && state.piece < pin.pieces.length ? state.piece : worked >= 0 ? worked : pin.pieces.length - 1;
    chance.title = `P of “${signs(pin.pieces[i])}” after “${signs(pin.pieces.slice(0, i).join("")).slice(-40)}”`;
    chance.canvas.setAttribute("aria-label", chance.title);
    chance.lines = [{ name: "P", x: moments.map((one) => one.step), y: moments.map((one) => one.pins[which] ? Math.exp(-one.pins[which].nats[i]) : null), color: "--accent", points: moments.length < 80 }];
    const truth = i === worked && pin.source === "the worked example" ? info.worked_odds : null;
    chance.rules = truth == null ? [] : [{ name: "true odds", y: truth, held: true }];
    chance.ask();
  };
  const fillPins = () => {
    const choice = at("pin"), was = choice.value;
    choice.replaceChildren(...state.info.pins.map((pin, i) => {
      const option = make("option", `${signs(pin.text).slice(0, 60)} (${pin.source})`);
      option.value = String(i);
      return option;
    }));
    if (was && Number(was) < state.info.pins.length) choice.value = was;
  };
  const fitSlider = (follows) => {
    const slider = at("moment"), most = Math.max(state.moments.length - 1, 0);
    const stood = Number(slider.value) === Number(slider.max);
    slider.max = String(most);
    if (follows && stood) slider.value = String(most);
  };

  // ---- what each layer would say, step by step: a column for each checkpoint, and for each time
  // that the weights of the moment were asked while this page was open

  const map = { text: "", columns: new Map(), asked: false };
  const addColumns = (text, columns) => {
    if (map.text !== text) Object.assign(map, { text, columns: new Map(), asked: false });
    for (const { step, layers } of columns) map.columns.set(step, layers);
    const steps = [...map.columns.keys()].sort((one, two) => one - two);
    at("by-step").disabled = map.asked;
    at("map-box").hidden = !map.asked && steps.length < 2;
    const head = make("tr");
    head.append(make("td"), ...steps.map((step) => make("th", `step ${number(step, 9)}`)));
    const rows = (map.columns.get(steps.at(-1)) || []).map((_, layer) => {
      const row = make("tr");
      row.append(make("th", layer ? `layer ${layer}` : "the embedding"), ...steps.map((step) => {
        const [piece, p] = map.columns.get(step)[layer].top[0], cell = make("td", `“${signs(piece)}”`, "piece-cell");
        cell.title = map.columns.get(step)[layer].top.map(([name, odd]) => `“${signs(name)}” ${odds(odd)}`).join(", ");
        heated(cell, -Math.log(p));
        cell.append(make("span", odds(p), "p"));
        return cell;
      }));
      return row;
    });
    at("map").replaceChildren(head, ...rows.reverse());
  };
  at("by-step").addEventListener("click", async () => {
    const text = at("line").value;
    at("by-step").disabled = true;
    at("map-said").textContent = "opening the checkpoints …";
    try {
      const told = await get(path("layers"), { text });
      map.asked = map.text === told.text;
      if (map.asked) addColumns(told.text, told.columns);
      const few = told.columns.length > 1 ? "While it learns each evaluation adds a column." : "This run has one checkpoint: --training.checkpoint-every and --training.keep-last keep more, and while it learns each evaluation adds a column.";
      at("map-said").textContent = `The likeliest piece of each layer and its probability; the stronger the color, the less sure it is. ${few}`;
    } catch (error) { at("map-said").textContent = error.message; at("by-step").disabled = false; }
  });

  // ---- asking and teaching

  let asked = 0;
  const learned = () => state.taught ? { taught: state.taught.text, times: state.taught.times } : {};
  const showHeads = async () => {
    if (!at("heads-shown").open) return;
    const turn = asked, box = document.querySelector(".attention");
    try {
      const told = await get(path("attention"), { text: at("line").value, ...learned() });
      if (turn !== asked) return;
      at("heads-said").textContent = `By its weights at step ${number(told.step, 9)}.`;
      const chosen = box.querySelector("[aria-pressed=true]"), { head: held, from } = document.activeElement.dataset;
      const [layer, head] = chosen ? chosen.dataset.head.split(".").map(Number) : [0, 0];
      showAttention(box, told, told.weights[layer]?.[head] ? [layer, head] : [0, 0]);
      box.hidden = false;
      // What is drawn anew takes the keyboard's place with it: it is given back.
      const again = held !== undefined ? `[data-head="${held}"]` : from !== undefined ? `[data-from="${from}"]` : "";
      if (again) box.querySelector(again)?.focus();
    } catch (error) { if (turn === asked) { at("heads-said").textContent = error.message; box.hidden = true; } }
  };
  at("heads-shown").addEventListener("toggle", showHeads);
  const ask = async () => {
    const turn = ++asked, text = at("line").value;
    showHeads();
    try {
      const told = await get(path("ask"), { text, top: 12, ...learned() });
      if (turn !== asked) return;
      at("ask-said").textContent = `By its weights at step ${number(told.step, 9)}${state.taught ? `, after ${state.taught.times} ${state.taught.times === 1 ? "step" : "steps"} on “${signs(state.taught.text)}”` : ""}. Click one to go on from there.`;
      const most = Math.max(...told.candidates.map((one) => one.probability), 1e-9);
      at("bars").replaceChildren(...told.candidates.map((one) => {
        const row = make("li"), button = make("button"), bar = make("span", undefined, "bar"), inside = make("span");
        button.type = "button";
        inside.style.width = `${100 * one.probability / most}%`;
        bar.append(inside);
        button.append(make("span", signs(one.piece), "word"), bar, make("span", odds(one.probability), "p"));
        button.addEventListener("click", () => { at("line").value += one.piece; at("line").focus(); ask(); });
        row.append(button);
        return row;
      }));
      const head = make("tr");
      for (const word of ["after", "it would say", `P of “${signs(told.candidates[0].piece)}”`]) head.append(make("th", word));
      at("lens").replaceChildren(head, ...told.layers.map((one) => {
        const row = make("tr");
        row.append(make("td", one.layer ? `layer ${one.layer}` : "the embedding"), make("td", one.top.map(([piece, p]) => `“${signs(piece)}” ${odds(p)}`).join("  ")), make("td", odds(one.probability), "number"));
        return row;
      }));
      addColumns(text, state.taught ? [] : [{ step: told.step, layers: told.layers }]);
      pieces(at("judged"), told.judged.map((one) => ({
        piece: one.piece, nats: one.nats,
        title: `“${signs(one.piece)}”: P ${odds(one.probability)}, ${one.nats.toFixed(2)} nats; it expected ${one.top.map(([piece, p]) => `“${signs(piece)}” ${odds(p)}`).join(", ")}`,
      })), () => {});
    } catch (error) {
      if (turn === asked) { at("ask-said").textContent = error.message; at("bars").replaceChildren(); at("judged").replaceChildren(); }
    }
  };
  let pause = 0;
  at("line").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(ask, 120); });
  at("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  at("teach").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = at("lesson").value;
    const times = state.taught && state.taught.text === text ? state.taught.times + 1 : 1;
    at("teach-said").textContent = "learning …";
    try {
      const told = await get(path("teach"), { text, times });
      state.taught = { text, times };
      at("undo").disabled = false;
      at("teach-said").textContent = `After ${times} ${times === 1 ? "step" : "steps"}, from its weights at step ${number(told.step, 9)}:`;
      const head = make("tr");
      for (const word of ["piece", "P before", "P after"]) head.append(make("th", word, word === "piece" ? "" : "number"));
      at("taught").replaceChildren(head, ...told.pieces.map((one) => {
        const row = make("tr");
        row.append(make("td", signs(one.piece), "piece-cell"), make("td", odds(one.before), "number"), make("td", odds(one.after), "number"));
        return row;
      }));
      ask();
    } catch (error) { at("teach-said").textContent = error.message; }
  });
  at("undo").addEventListener("click", () => {
    state.taught = null;
    at("undo").disabled = true;
    at("teach-said").textContent = "Forgotten.";
    at("taught").replaceChildren();
    ask();
  });

  // ---- what a step read

  const look = async (step) => {
    at("step").value = String(step);
    at("batch").hidden = false;
    try {
      const told = await get(`${path("batch")}?step=${step}`);
      at("batch-said").textContent = `Step ${number(step, 9)} read ${number(told.rows, 9)} rows; here are ${told.texts.length}.` +
        (!told.layers.length ? "" : told.checkpoint == null ? " Below: how long the gradient of each layer was, of the whole batch." : ` Below: how long the gradient of each layer is on them, by the weights at step ${number(told.checkpoint, 9)}.`);
      at("batch-texts").replaceChildren(...told.texts.map((text) => make("div", signs(text), "sample")));
      const most = Math.max(...told.layers.map((one) => one.norm), 1e-12);
      at("layers").replaceChildren(...told.layers.map((one) => bar(one.name, one.norm / most, number(one.norm))));
    } catch (error) { at("batch-said").textContent = error.message; at("batch-texts").replaceChildren(); at("layers").replaceChildren(); }
  };
  at("look").addEventListener("click", () => look(Number(at("step").value)));
  loss.canvas.addEventListener("click", (event) => { const here = loss.nearest(event.offsetX); if (live && here !== null) look(state.curve.step[here]); });

  // ---- two runs

  const compare = () => {
    const { info, beside } = state;
    at("two-section").hidden = !beside;
    if (!beside) return;
    const head = make("tr");
    for (const word of ["", info.name, beside.name]) head.append(word ? make("th", word) : make("td"));
    const rows = [];
    const row = (name, one, two) => {
      const made = make("tr");
      made.append(make("th", name), make("td", one), make("td", two));
      rows.push(made);
    };
    const last = (what) => { const held = what.evaluations.filter((one) => one.nats_per_token != null).at(-1); return held ? number(held.nats_per_token) : "–"; };
    row("hold-out, nats a piece", last(info), last(beside));
    row("weights", number(info.parameters, 9), number(beside.parameters, 9));
    row("steps", number((info.latest || {}).step, 9), number((beside.latest || {}).step, 9));
    const read = (lines) => { const found = new Map(); let room = ""; for (const line of lines) { const begins = /^\[(.+)\]/.exec(line); if (begins) room = begins[1]; const is = /^(\w+)\s*=\s*(.*)$/.exec(line); if (is) found.set(`${room}.${is[1]}`, is[2]); } return found; };
    const ours = read(info.settings), theirs = read(beside.settings);
    for (const name of [...new Set([...ours.keys(), ...theirs.keys()])].sort()) {
      if (ours.get(name) !== theirs.get(name)) row(name, ours.get(name) ?? "–", theirs.get(name) ?? "–");
    }
    const wrote = (what) => signs((what.evaluations.filter((one) => one.sample).at(-1) || {}).sample || "–");
    row("it writes", wrote(info), wrote(beside));
    at("two").replaceChildren(head, ...rows);
  };

  // ---- coming and going

  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const name = state.run;
      const [info, curve, more] = await Promise.all([get(path("run")), get(`${path("curve")}?points=1200`), get(`${path("moments")}?since=${state.moments.length}`)]);
      if (name === state.run) {
        if (info.moments < state.moments.length) state.moments = [];
        state.moments.push(...more);
        take(info, curve);
        trouble("");
      }
    } catch (error) { trouble(error.message); }
    // A page that drew each step anew would cost the training more than it may.
    setTimeout(() => { busy = false; if (again) { again = false; refresh(); } }, 2000);
  };
  const take = (info, curve) => {
    const news = !state.info || state.info.pins.length !== info.pins.length;
    const newer = !state.info || state.info.evaluations.length !== info.evaluations.length;
    state.info = info;
    state.curve = curve;
    if (news) fillPins();
    fitSlider(true);
    tell();
    paint();
    showMoment();
    compare();
    if (live && !info.cannot_ask && (news || newer)) ask();
  };
  let source = null;
  const follow = () => {
    if (source) source.close();
    source = new EventSource(path("changes"));
    source.onmessage = refresh;
    source.onerror = () => trouble("The server does not answer; the page goes on when it does.");
  };
  const turnTo = (name) => {
    busy = again = false;
    asked++; // what is on its way is of the run before
    document.querySelector(".attention").hidden = true;
    Object.assign(state, { run: name, info: null, curve: null, moments: [], piece: -1, taught: null });
    at("undo").disabled = true;
    at("taught").replaceChildren();
    at("teach-said").textContent = "";
    refresh();
    follow();
  };
  const setBeside = async () => {
    const name = at("beside").value;
    state.beside = state.besideCurve = null;
    if (name) {
      try { [state.beside, state.besideCurve] = await Promise.all([get(path("run", name)), get(`${path("curve", name)}?points=1200`)]); }
      catch (error) { trouble(error.message); }
    }
    paint();
    compare();
  };
  at("run").addEventListener("change", () => turnTo(at("run").value));
  at("beside").addEventListener("change", setBeside);
  for (const id of ["across", "log"]) at(id).addEventListener("change", paint);
  at("pin").addEventListener("change", () => { state.piece = -1; showMoment(); });
  let timer = 0;
  const stop = () => { clearInterval(timer); timer = 0; at("play").textContent = "Play"; };
  at("moment").addEventListener("input", () => { stop(); showMoment(); });
  at("play").addEventListener("click", () => {
    if (timer) return stop();
    const slider = at("moment");
    if (slider.value === slider.max) slider.value = "0";
    at("play").textContent = "Pause";
    timer = setInterval(() => {
      slider.value = String(Number(slider.value) + 1);
      showMoment();
      if (slider.value === slider.max) stop();
    }, 200);
  });
  for (const button of document.querySelectorAll("[data-order]")) {
    button.addEventListener("click", async () => {
      try {
        const told = await get(path("tell"), { what: button.dataset.order }, { "X-Nextword-Token": known.token });
        trouble({ save: "It was told to save.", stop: "It was told to save and to stop.", pause: "It pauses.", "go on": "It goes on.", "halve the rate": `Its rate is ${number(told.scale)} times the schedule's from the next step on.` }[told.told]);
        if (told.told === "pause" || told.told === "go on") {
          state.info.paused = told.told === "pause";
          tell();
        }
      } catch (error) { trouble(error.message); }
    });
  }
  const boxes = [...document.querySelectorAll(".scroll")];
  const reach = new ResizeObserver(() => { for (const box of boxes) { if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex"); } });
  for (const box of boxes) { reach.observe(box); if (box.firstElementChild) reach.observe(box.firstElementChild); }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { for (const chart of charts) chart.ask(); });
  if (live) {
    get("/api/runs").then(({ runs }) => {
      for (const [id, first] of [["run", []], ["beside", [...at("beside").children]]]) at(id).replaceChildren(...first, ...runs.map((name) => make("option", name)));
      at("run").value = known.run;
    }).catch((error) => trouble(error.message));
    turnTo(known.run);
  } else {
    for (const id of ["two-section", "step-controls"]) at(id).hidden = true;
    at("beside").closest("label").hidden = true;
    at("run").replaceChildren(make("option", known.run));
    state.moments = known.data.moments;
    take(known.data.run, known.data.curve);
  }
})();
