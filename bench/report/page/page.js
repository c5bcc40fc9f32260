"use strict";
document.documentElement.classList.add("script");
const PAGE = 25;
const SVG = "http://www.w3.org/2000/svg";
const el = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const option = (value, text) => el("option", { value, textContent: text });

for (const button of document.querySelectorAll(".theme button")) {
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = button.dataset.theme;
    for (const other of document.querySelectorAll(".theme button")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  });
}

/* Scores and pictures of one result; places are those of seed, prompt and image, in this order. */
class Result {
  constructor(key) {
    this.key = key;
    this.data = JSON.parse(document.getElementById(`${key}-data`).textContent);
    const { arms, prompts, images } = this.data;
    this.seeds = arms.reduce((most, arm) => (arm.seeds.length > most.length ? arm.seeds : most), []);
    this.size = prompts.length * images;
  }

  place(arm, s, rest) {
    return (this.data.arms[arm].seeds.length > 1 ? s : 0) * this.size + rest;
  }

  score(reward, arm, s, rest) {
    return this.data.scores[reward][arm][this.place(arm, s, rest)];
  }

  sum(reward, arms, s, rest) {
    const values = arms.map((arm) => this.score(reward, arm, s, rest));
    return values.includes(null) ? null : values.reduce((a, b) => a + b, 0);
  }

  /* The difference of a comparison, in whole units of the last digit; null where one is missing. */
  gain(reward, comparison, s, rest) {
    const on = this.sum(reward, comparison.on, s, rest);
    const off = this.sum(reward, comparison.off, s, rest);
    return on === null || off === null ? null : this.data.rewards[reward].sign * (on - off);
  }

  /* How far rewards stand apart, in standard deviations; null where none disagree. */
  apart(comparison, s, rest) {
    let high = 0;
    let low = 0;
    this.data.rewards.forEach(({ digits }, reward) => {
      const gain = this.gain(reward, comparison, s, rest);
      if (gain === null) return;
      const scaled = gain / 10 ** digits / comparison.spreads[reward];
      high = Math.max(high, scaled);
      low = Math.min(low, scaled);
    });
    return high > 0 && low < 0 ? high - low : null;
  }

  text(reward, value, signed = false) {
    if (value === null) return "missing";
    const digits = this.data.rewards[reward].digits;
    const told = (value / 10 ** digits).toFixed(digits);
    return signed && value >= 0 ? `+${told}` : told;
  }

  number(arm, s, rest) {
    return this.data.pictures[arm][this.place(arm, s, rest)];
  }

  /* Whether there is a picture of a trained arm at a training seed. */
  shows(s) {
    const first = s * this.size;
    return this.data.pictures.slice(1).some((found) =>
      Object.keys(found).some((place) => place >= first && place < first + this.size));
  }

  picture(arm, s, rest, label) {
    const number = this.number(arm, s, rest);
    if (number === undefined) return el("span", { className: "absent", textContent: "no picture" });
    const image = document.getElementById(`${this.key}p${number}`);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${image.getAttribute("width")} ${image.getAttribute("height")}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const use = document.createElementNS(SVG, "use");
    use.setAttribute("href", `#${image.id}`);
    svg.append(use);
    return svg;
  }
}

/* A picture of an arm under one of the base model, of which --cut shows a part. */
function wiped(result, arm, s, rest, label) {
  const own = result.picture(arm, s, rest, label);
  if (arm === 0 || own.tagName !== "svg") return [own];
  const base = result.picture(0, s, rest, `base: ${label}`);
  base.classList.add("under");
  return [own, base];
}

class Grid {
  constructor(result, form) {
    this.result = result;
    this.form = form;
    this.root = document.getElementById(`${result.key}-grid`);
    const { seed, k, cut, base } = form.elements;
    result.seeds.forEach((value, s) => {
      if (result.shows(s)) seed.append(option(s, String(value)));
    });
    for (let n = 0; n < result.data.images; n += 1) k.append(option(n, String(n + 1)));
    for (const select of [seed, k]) select.parentElement.hidden = select.options.length < 2;
    for (const figure of this.root.querySelectorAll("figure")) {
      const button = el("button", { type: "button", className: "pic" });
      figure.querySelector(".pic").replaceWith(button);
      button.addEventListener("click", () => this.open(figure));
    }
    const wipe = () => {
      this.root.style.setProperty("--cut", `${cut.value}%`);
      base.setAttribute("aria-pressed", String(cut.value === "100"));
    };
    cut.addEventListener("input", wipe);
    base.addEventListener("click", () => {
      cut.value = cut.value === "100" ? "0" : "100";
      wipe();
    });
    seed.addEventListener("change", () => this.draw());
    k.addEventListener("change", () => this.draw());
    form.addEventListener("submit", (event) => event.preventDefault());
    wipe();
    this.draw();
  }

  place(figure) {
    const { seed, k } = this.form.elements;
    const rest = Number(figure.dataset.prompt) * this.result.data.images + Number(k.value);
    return [Number(figure.dataset.arm), Number(seed.value), rest];
  }

  label(figure) {
    const { arms, prompts } = this.result.data;
    return `${arms[figure.dataset.arm].name}: ${prompts[figure.dataset.prompt]}`;
  }

  draw() {
    const { primary } = this.result.data;
    for (const figure of this.root.querySelectorAll("figure")) {
      const [arm, s, rest] = this.place(figure);
      figure.querySelector(".pic").replaceChildren(...wiped(this.result, arm, s, rest, this.label(figure)));
      figure.querySelector(".score").textContent =
        this.result.text(primary, this.result.score(primary, arm, s, rest));
    }
  }

  open(figure) {
    const { result } = this;
    const [arm, s, rest] = this.place(figure);
    const { arms, prompts, rewards } = result.data;
    const name = arms[arm].name;
    const cut = el("input", { type: "range", min: 0, max: 100, value: 50 });
    cut.setAttribute("aria-label", "how much of the base model's picture is shown, percent");
    const wide = el("div", { className: "wide" }, ...wiped(result, arm, s, rest, this.label(figure)));
    const wipe = () => wide.style.setProperty("--cut", `${cut.value}%`);
    cut.addEventListener("input", wipe);
    const rows = rewards.map((reward, r) => {
      const texts = [reward.name, result.text(r, result.score(r, arm, s, rest)), result.text(r, result.score(r, 0, s, rest))];
      return el("tr", {}, ...texts.map((textContent) => el("td", { textContent })));
    });
    const heads = ["reward", name, arms[0].name].map((textContent) => el("th", { textContent }));
    const close = el("button", { type: "button", textContent: "close" });
    const dialog = el("dialog", {},
      el("h3", { textContent: prompts[figure.dataset.prompt] }), wide,
      el("div", { className: "split", hidden: !arm }, cut,
        el("span", {}, el("span", { textContent: `◂ ${arms[0].name}` }), el("span", { textContent: `${name} ▸` }))),
      el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)),
      el("p", {}, close));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      figure.querySelector(".pic").focus();
    });
    document.body.append(dialog);
    wipe();
    dialog.showModal();
    (arm ? cut : close).focus();
  }
}

class Browser {
  constructor(result, root) {
    this.result = result;
    this.root = root;
    this.form = root.querySelector("form");
    const { comparisons, rewards, primary, pictures } = result.data;
    const { comparison, reward, seed, words } = this.form.elements;
    comparisons.forEach(({ name }, n) => comparison.append(option(n, name)));
    rewards.forEach(({ name }, n) => reward.append(option(n, name)));
    reward.value = primary;
    seed.append(option("", "all"));
    result.seeds.forEach((value, s) => seed.append(option(s, String(value))));
    this.pictured = pictures.some((found) => Object.keys(found).length);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", () => this.find());
    words.addEventListener("input", () => this.find());
    const [back, on] = root.querySelectorAll(".turn button");
    back.addEventListener("click", () => this.turn(-1));
    on.addEventListener("click", () => this.turn(1));
    this.find();
  }

  find() {
    const { result } = this;
    const { data } = result;
    const { comparison, reward, seed, outcome, sort, words } = this.form.elements;
    this.comparison = data.comparisons[comparison.value];
    this.reward = Number(reward.value);
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.arms = [...this.comparison.on, ...this.comparison.off];
    const runs = Math.max(...this.arms.map((arm) => data.arms[arm].seeds.length));
    const tie = data.tie * 10 ** data.rewards[this.reward].digits;
    const keep = {
      all: () => true,
      win: ({ gain }) => gain !== null && gain > tie,
      tie: ({ gain }) => gain !== null && Math.abs(gain) <= tie,
      loss: ({ gain }) => gain !== null && gain < -tie,
      apart: ({ apart }) => apart !== null,
      missing: ({ gain }) => gain === null,
    }[outcome.value];
    this.rows = [];
    data.prompts.forEach((prompt, p) => {
      const text = prompt.toLowerCase();
      if (!wanted.every((word) => text.includes(word))) return;
      for (let s = 0; s < runs; s += 1) {
        if (runs > 1 && seed.value !== "" && Number(seed.value) !== s) continue;
        for (let k = 0; k < data.images; k += 1) {
          const rest = p * data.images + k;
          const gain = result.gain(this.reward, this.comparison, s, rest);
          const row = { p, s, k, rest, gain, apart: result.apart(this.comparison, s, rest) };
          if (keep(row)) this.rows.push(row);
        }
      }
    });
    const last = -Infinity;
    const key = {
      down: ({ gain }) => gain ?? last,
      up: ({ gain }) => (gain === null ? last : -gain),
      apart: ({ apart }) => apart ?? last,
      prompt: () => 0,
    }[sort.value];
    this.rows.sort((a, b) => Math.sign(key(b) - key(a)) || a.rest - b.rest || a.s - b.s);
    this.first = 0;
    this.draw();
  }

  turn(by) {
    this.first += by * PAGE;
    this.draw();
  }

  draw() {
    const { data } = this.result;
    const { rows, first } = this;
    const count = rows.length.toLocaleString("en");
    this.root.querySelector(".count").textContent =
      rows.length ? `${count} pair${rows.length === 1 ? "" : "s"}` : "No pair is like this.";
    const [back, on] = this.root.querySelectorAll(".turn button");
    back.disabled = first === 0;
    on.disabled = first + PAGE >= rows.length;
    this.root.querySelector(".turn span").textContent =
      rows.length ? `${first + 1} to ${Math.min(first + PAGE, rows.length)}` : "";
    const heads = ["prompt", "seed", ...(data.images > 1 ? ["image"] : []),
      ...(this.pictured ? [this.arms.map((arm) => data.arms[arm].name).join(", ")] : []), ...data.rewards.map(({ name }) => name)];
    this.root.querySelector("thead").replaceChildren(
      el("tr", {}, ...heads.map((textContent) => el("th", { textContent, scope: "col" }))));
    this.root.querySelector("tbody").replaceChildren(
      ...rows.slice(first, first + PAGE).map((row) => this.row(row)));
  }

  row({ p, s, k, rest }) {
    const { data, seeds } = this.result;
    const cells = [el("td", { textContent: data.prompts[p] }), el("td", { textContent: String(seeds[s]) })];
    if (data.images > 1) cells.push(el("td", { textContent: String(k + 1) }));
    if (this.pictured) {
      const cell = el("td", {});
      const there = this.arms.every((arm) => this.result.number(arm, s, rest) !== undefined);
      for (const arm of there ? this.arms : []) {
        cell.append(this.result.picture(arm, s, rest, data.arms[arm].name), " ");
      }
      cells.push(cell);
    }
    data.rewards.forEach((_, reward) => {
      const gain = this.result.gain(reward, this.comparison, s, rest);
      const className = gain === null ? "missing" : gain > 0 ? "better" : gain < 0 ? "worse" : "";
      cells.push(el("td", { className, textContent: this.result.text(reward, gain, true) }));
    });
    return el("tr", {}, ...cells);
  }
}

for (const root of document.querySelectorAll("[data-browser]")) {
  const result = new Result(root.dataset.browser);
  const form = document.querySelector(`[data-grid="${result.key}"]`);
  if (form !== null) new Grid(result, form);
  new Browser(result, root);
}
