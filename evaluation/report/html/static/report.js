"use strict";

// Tables: a click on a heading sorts the rows within each group.

function sortKey(cell) {
  const text = cell?.dataset.sort ?? "";
  const number = text === "" ? NaN : Number(text.replace(/^(-?)inf$/, "$1Infinity"));
  return { text, number };
}

function compareCells(a, b, sign) {
  const x = sortKey(a);
  const y = sortKey(b);
  if ((x.text === "") !== (y.text === "")) return x.text === "" ? 1 : -1; // missing values come last
  if (Number.isNaN(x.number) || Number.isNaN(y.number)) return sign * x.text.localeCompare(y.text, "en", { numeric: true });
  return x.number === y.number ? 0 : sign * (x.number < y.number ? -1 : 1);
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], ascending ? 1 : -1));
        body.append(...rows);
      }
    });
  });
}

// Players: one per clip; all its signals share one position.

const CLOSE_S = 0.03; // a signal replaces the one before it once their positions are this close
let active = null; // the player that receives the keys

class Player {
  constructor(card) {
    this.card = card;
    this.duration = Number(card.querySelector(".position").max);
    this.slider = card.querySelector(".position");
    this.output = card.querySelector(".time");
    this.playButton = card.querySelector(".play");
    this.loop = card.querySelector(".loop");
    this.trouble = card.querySelector(".trouble");
    this.rows = [...card.querySelectorAll(".signal")];
    this.rateButtons = [...card.querySelectorAll(".rates button")];
    this.current = null; // chosen row
    this.sounding = null; // audio element that plays
    this.playing = false; // true also while a signal is about to play
    this.rest = 0; // position while nothing plays, seconds
    this.lead = 0.02; // seconds that a signal takes to start; adapted while playing
    this.turn = 0;
    for (const row of this.rows) {
      row.querySelector("button.choose")?.addEventListener("click", () => this.choose(row));
      for (const picture of row.querySelectorAll(".picture")) {
        picture.addEventListener("click", (event) => {
          const box = picture.getBoundingClientRect();
          this.seek(((event.clientX - box.left) / box.width) * this.duration);
          if (row.dataset.sound) this.choose(row);
        });
      }
    }
    for (const button of this.rateButtons) button.addEventListener("click", () => this.setRate(button.dataset.rate));
    this.playButton.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.loop.addEventListener("change", () => {
      for (const audio of card.querySelectorAll("audio")) audio.loop = this.loop.checked;
    });
    card.addEventListener("pointerdown", () => this.activate());
    this.setRate(this.rateButtons[0]?.dataset.rate ?? null);
    const first = this.choices()[0];
    if (first) this.choose(first);
    else this.playButton.disabled = this.slider.disabled = true;
  }

  /** Visible rows with sound, in the order of the keys. */
  choices() {
    return this.rows.filter((row) => !row.hidden && row.dataset.sound);
  }

  position() {
    return this.sounding ? this.sounding.currentTime : this.rest;
  }

  activate() {
    if (active === this) return;
    active?.pause();
    active?.card.classList.remove("active");
    active = this;
    this.card.classList.add("active");
  }

  /** The row's audio element; created on first use, so that opening the page loads no audio. */
  audioOf(row) {
    let audio = row.querySelector("audio");
    if (!audio) {
      audio = document.createElement("audio");
      audio.preload = "auto";
      audio.src = row.dataset.sound;
      audio.loop = this.loop.checked;
      audio.addEventListener("ended", () => {
        if (audio === this.sounding) this.stopAt(0);
      });
      row.append(audio);
    }
    return audio;
  }

  setRate(rate) {
    const codec = this.current?.querySelector(".choose").dataset.codec;
    for (const row of this.rows) row.hidden = row.dataset.rate !== "" && rate !== null && row.dataset.rate !== rate;
    for (const button of this.rateButtons) button.setAttribute("aria-pressed", String(button.dataset.rate === rate));
    this.choices().forEach((row, index) => {
      row.querySelector("kbd").textContent = index < 9 ? String(index + 1) : "";
    });
    if (!this.current?.hidden) return;
    const same = this.choices().find((row) => row.querySelector(".choose").dataset.codec === codec);
    this.choose(same ?? this.choices()[0]);
  }

  stepRate(step) {
    const index = this.rateButtons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    this.rateButtons[index + step]?.click();
  }

  choose(row) {
    this.current = row;
    for (const other of this.rows) other.querySelector("button.choose")?.setAttribute("aria-pressed", String(other === row));
    if (this.playing) this.start();
  }

  toggle() {
    this.activate();
    if (this.playing) this.pause();
    else this.start();
  }

  pause() {
    this.stopAt(this.position());
  }

  stopAt(position) {
    this.turn += 1;
    this.rest = position;
    for (const audio of this.card.querySelectorAll("audio")) audio.pause();
    this.sounding = null;
    this.playing = false;
    this.show();
  }

  seek(position) {
    const target = Math.min(Math.max(position, 0), this.duration);
    if (this.sounding) this.sounding.currentTime = target;
    else this.rest = target;
    this.show();
  }

  /** Play the chosen row from the current position; the signal before it plays until the new one is in time. */
  async start() {
    this.turn += 1;
    this.playing = true;
    const turn = this.turn;
    const before = this.sounding;
    const next = this.audioOf(this.current);
    for (const row of this.choices()) this.audioOf(row);
    if (before === next) return;
    this.trouble.textContent = "";
    next.muted = before !== null;
    try {
      next.currentTime = this.ahead(before);
      await next.play();
      for (let attempt = 0; before && attempt < 8; attempt += 1) {
        const late = this.lateness(before, next);
        if (Math.abs(late) <= CLOSE_S || turn !== this.turn) break;
        this.lead = Math.min(Math.max(this.lead + late, 0), 0.5);
        const sought = new Promise((resolve) => next.addEventListener("seeked", resolve, { once: true }));
        next.currentTime = this.ahead(before);
        await sought;
      }
    } catch (error) {
      if (turn === this.turn) {
        this.stopAt(this.position());
        this.trouble.textContent = next.error ? "This signal cannot be played. Is its file beside the page?" : String(error);
      }
      return;
    }
    if (turn !== this.turn) {
      if (next !== this.sounding && next !== this.audioOf(this.current)) next.pause();
      return;
    }
    next.muted = false;
    before?.pause();
    this.sounding = next;
    this.tick();
  }

  /** Position where a signal must start to be in time when it sounds. */
  ahead(before) {
    const position = before ? before.currentTime + this.lead : this.rest;
    return position < this.duration ? position : position % this.duration;
  }

  /** Seconds by which the next signal is behind, also across the end of the loop. */
  lateness(before, next) {
    const late = before.currentTime - next.currentTime;
    return Math.abs(late) < this.duration / 2 ? late : late - Math.sign(late) * this.duration;
  }

  show() {
    const position = this.position();
    this.slider.value = position;
    this.output.textContent = `${position.toFixed(2)} s`;
    this.playButton.textContent = this.playing ? "❚❚" : "▶";
    this.playButton.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    const left = `${Math.min(100, (100 * position) / this.duration)}%`;
    for (const cursor of this.card.querySelectorAll(".signal:not([hidden]) .cursor")) cursor.style.left = left;
  }

  tick() {
    this.show();
    if (this.playing) requestAnimationFrame(() => this.tick());
  }
}

function nearestPlayer(players) {
  const middle = innerHeight / 2;
  const distance = (player) => {
    const box = player.card.getBoundingClientRect();
    return box.top > middle ? box.top - middle : Math.max(0, middle - box.bottom);
  };
  return players.reduce((best, player) => (distance(player) < distance(best) ? player : best));
}

function onKey(event, players) {
  if (event.ctrlKey || event.metaKey || event.altKey || players.length === 0) return;
  const target = event.target;
  if (target.matches("input[type=text], textarea, select")) return;
  const pressesItself = target.matches("button, a, input, summary") && !target.matches(".choose, .play, .rates button");
  const player = active ?? nearestPlayer(players);
  const actions = {
    " ": () => player.toggle(),
    l: () => player.loop.click(),
    "[": () => player.stepRate(-1),
    "]": () => player.stepRate(1),
    ArrowLeft: () => player.seek(player.position() - 1),
    ArrowRight: () => player.seek(player.position() + 1),
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-9]$/.test(key)) {
    const row = player.choices()[Number(key) - 1];
    if (!row) return;
    player.activate();
    player.choose(row);
  } else if (key in actions) {
    if (pressesItself && (key === " " || key.startsWith("Arrow"))) return;
    player.activate();
    actions[key]();
  } else {
    return;
  }
  event.preventDefault();
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
const players = [...document.querySelectorAll(".clip")].map((card) => new Player(card));
document.addEventListener("keydown", (event) => onKey(event, players));
// Paper must show everything.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
