"use strict";
(() => {
  const data = JSON.parse(document.getElementById("replay-data").textContent);
  // What is not too wide just now is no stop for the keyboard.
  const scrolling = [...document.querySelectorAll(".scroll")];
  const reach = () => {
    for (const box of scrolling) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  const heads = document.getElementById("attention-data");
  if (heads) showAttention(document.querySelector(".attention"), JSON.parse(heads.textContent));
  const watch = new ResizeObserver(reach);
  for (const box of scrolling) watch.observe(box);
  const box = document.getElementById("replay");
  if (box && data.moments.length) {
    const slider = box.querySelector("input[type=range]");
    const choice = box.querySelector("select");
    const play = box.querySelector("button");
    const step = box.querySelector("#replay-step");
    const loss = box.querySelector("#replay-loss");
    const text = box.querySelector("#replay-text");
    const rows = box.querySelector("#replay-rows");
    const likely = (p) =>
      p > 0.99995 && p < 1 ? ">0.9999" : p < 0.001 ? p.toExponential(1) : p.toFixed(4);
    // The same colors as those of the judged texts, whose HTML has them written out.
    const paint = (span, nats) => {
      const share = Math.sqrt(Math.min(Math.max(nats / data.hottest, 0), 1));
      const behind = data.schemes.map(
        ({ cold, hot }) =>
          `rgb(${cold.map((part, which) => Math.floor(part + share * (hot[which] - part) + 0.5))})`
      );
      const [light, dark] = data.schemes.map(({ ink }) => `rgb(${ink})`);
      span.style.background = behind[0];
      span.style.background = `light-dark(${behind})`;
      span.style.color = light;
      span.style.color = `light-dark(${light},${dark})`;
    };
    const show = () => {
      const moment = data.moments[Number(slider.value)];
      const number = Number(choice.value);
      const one = moment.pins[number];
      const pieces = data.pins[number].pieces;
      step.textContent = moment.step.toLocaleString("en");
      const mean = one.nats.reduce((sum, nats) => sum + nats, 0) / one.nats.length;
      loss.textContent = mean.toFixed(4);
      slider.setAttribute("aria-valuetext", `step ${moment.step}, loss ${mean.toFixed(2)} nats`);
      text.replaceChildren(
        ...pieces.map((piece, place) => {
          const span = document.createElement("span");
          span.className = "piece";
          paint(span, one.nats[place]);
          span.textContent = piece;
          return span;
        })
      );
      rows.replaceChildren(
        ...pieces.map((piece, place) => {
          const row = document.createElement("tr");
          const cells = [
            [data.pins[number].shown[place], "piece-cell"],
            [likely(Math.exp(-one.nats[place])), "number"],
            [one.nats[place].toFixed(4), "number"],
            [one.likeliest[place], "piece-cell"],
            [likely(one.likeliest_probability[place]), "number"],
          ];
          for (const [words, kind] of cells) {
            const cell = document.createElement("td");
            cell.className = kind;
            cell.textContent = words;
            row.append(cell);
          }
          return row;
        })
      );
      reach();
    };
    let timer = 0;
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (slider.value === slider.max) slider.value = "0";
      play.textContent = "Pause";
      timer = setInterval(() => {
        slider.value = String(Number(slider.value) + 1);
        show();
        if (slider.value === slider.max) stop();
      }, 250);
      show();
    });
    slider.addEventListener("input", () => { stop(); show(); });
    choice.addEventListener("change", show);
    show();
  }
  // One stop for the keyboard in each judged text; arrows go from piece to piece.
  for (const text of document.querySelectorAll(".heat[data-said]")) {
    const said = document.getElementById(text.dataset.said);
    const pieces = [...text.querySelectorAll(".piece")];
    const go = (to) => {
      const piece = pieces[to];
      if (!piece) return;
      for (const other of pieces) other.tabIndex = other === piece ? 0 : -1;
      piece.focus();
    };
    pieces.forEach((piece, place) => {
      const tell = () => { said.textContent = piece.title; };
      piece.addEventListener("focus", tell);
      piece.addEventListener("mouseenter", tell);
      piece.addEventListener("click", () => go(place));
      piece.addEventListener("keydown", (event) => {
        const moves = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: pieces.length - 1 };
        if (event.key in moves) {
          event.preventDefault();
          go(moves[event.key]);
        }
      });
    });
  }
})();
