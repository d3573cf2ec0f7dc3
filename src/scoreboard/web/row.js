/**
 * One player's row: who it is, the score, and how it moves.
 *
 * In: a line and a place. Out: a table row. Never: markup made from a name, a number that is not in the end exactly
 * the line's.
 */

import { draw, make, write } from "./markup.js";

const GLIDE_MS = 520;
const COUNT_MS = 700;
const MARK_MS = 6_000;
const FADE_MS = 600;
const EASE = "cubic-bezier(.2, .75, .2, 1)";
/** Rows that come in one after the other at first; below them nobody sees it. */
const STAGGERED = 12;

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const easeOut = (t) => 1 - (1 - t) ** 3;

/** Will anybody see a motion now, and like it? */
export const mayMove = () => !calm.matches && !document.hidden;

export class Row {
  place = 0;
  counting = false;
  #words;
  #parts;
  #score = 0; // as shown now
  #share = 0;
  #from = { score: 0, share: 0 };
  #goal = { score: NaN, share: NaN };
  #since = 0;
  /** @type {number | null} the place that the mark counts from; Infinity: was not on the board */ #base = null;
  #fading = 0;

  /** @param {import("./words.js").Words} words */
  constructor(words) {
    this.#words = words;
    this.#parts = drawn();
    this.element = this.#parts.row;
  }

  /** Everything but the score. @param {import("./scoreboard.js").Line} line @param {boolean} tied @param {boolean} mine */
  describe(line, tied, mine) {
    const { number, tie, name, you } = this.#parts;
    write(number, this.#words.number(line.rank));
    if (name.textContent !== line.name) name.textContent = name.title = line.name;
    tie.hidden = !tied;
    you.hidden = !mine;
    this.element.classList.toggle("mine", mine);
    this.element.dataset.rank = String(line.rank);
    this.element.part.toggle("first", line.rank === 1);
    this.element.part.toggle("mine", mine);
  }

  /** Show this score (and bar) in the end: counting, or at once. @param {number} score @param {number} share @param {boolean} slowly */
  aim(score, share, slowly) {
    const same = score === this.#goal.score && share === this.#goal.share;
    if (same && (slowly || !this.counting)) return;
    this.#from = { score: this.#score, share: this.#share };
    this.#goal = { score, share };
    this.#since = performance.now();
    this.counting = slowly;
    if (!slowly) this.#paint(score, share);
  }

  /** @param {number} now */
  count(now) {
    const progress = Math.max(0, (now - this.#since) / COUNT_MS);
    const { score, share } = this.#goal;
    if (progress >= 1 || !mayMove()) {
      this.counting = false;
      this.#paint(score, share);
      return;
    }
    const part = easeOut(progress);
    this.#paint(
      Math.round(this.#from.score + (score - this.#from.score) * part) + 0, // never -0
      this.#from.share + (share - this.#from.share) * part,
    );
  }

  #paint(score, share) {
    this.#score = score;
    this.#share = share;
    write(this.#parts.score, this.#words.number(score));
    this.#parts.bar.style.transform = `translateX(${(share - 1) * 100}%)`;
  }

  /** Say for some seconds how the row came to its place. @param {number} place @param {boolean} entered */
  mark(place, entered) {
    if (entered) this.#base = Infinity;
    else if (place === this.place) return;
    else this.#base ??= this.place;
    const rise = this.#base - place;
    const { mark } = this.#parts;
    clearTimeout(this.#fading);
    if (rise === 0) {
      this.#unmark();
      return;
    }
    const steps = this.#words.number(Math.abs(rise));
    const [kind, sign, words] =
      rise === Infinity ? ["new", "new", "new"]
      : rise > 0 ? ["up", `▲ ${steps}`, `up ${steps}`]
      : ["down", `▼ ${steps}`, `down ${steps}`];
    mark.dataset.kind = kind;
    write(mark.firstElementChild, sign);
    write(mark.lastElementChild, words);
    mark.hidden = false;
    this.#fading = setTimeout(() => this.#fade(), MARK_MS);
  }

  #fade() {
    if (!mayMove()) {
      this.#unmark();
      return;
    }
    this.#parts.mark.animate({ opacity: [1, 0] }, FADE_MS);
    this.#fading = setTimeout(() => this.#unmark(), FADE_MS);
  }

  #unmark() {
    this.#base = null;
    this.#parts.mark.hidden = true;
  }

  /** Stop all timers. */
  forget() {
    clearTimeout(this.#fading);
  }

  /**
   * From where the row was to where it is. Additive: a row that is overtaken while it still moves keeps its
   * momentum, because each change of place is a motion of its own on top of those under way.
   * @param {number} distance pixels
   */
  glide(distance) {
    if (!distance) return;
    const { element } = this;
    const timing = { duration: GLIDE_MS, easing: EASE };
    element.animate({ transform: [`translateY(${distance}px)`, "translateY(0)"] }, { ...timing, composite: "add" });
    if (distance < 0) return;
    element.classList.add("rising"); // above those that it passes
    element.animate({ scale: [1, 1.015, 1] }, timing).onfinish = () => element.classList.remove("rising");
  }

  /** Comes from below the board's last row. @param {number} distance pixels */
  enter(distance) {
    this.element.animate({ opacity: [0, 1] }, { duration: GLIDE_MS / 2 });
    this.glide(distance);
  }

  /** One after the other, when the board is shown first. @param {number} place */
  appear(place) {
    if (place >= STAGGERED) return;
    this.element.animate(
      { opacity: [0, 1], transform: ["translateY(60%)", "none"] },
      { duration: GLIDE_MS, delay: place * 35, easing: EASE, fill: "backwards" },
    );
  }

  /** Pushed off the board: sinks away under the others. @param {HTMLElement} body @param {number} top */
  leave(body, top) {
    const { element } = this;
    body.append(element);
    element.classList.add("leaving");
    element.ariaHidden = "true";
    element.style.top = `${top}px`;
    const sinking = element.animate(
      { opacity: [1, 0], transform: ["none", "translateY(60%)"] },
      { duration: GLIDE_MS, easing: EASE, fill: "forwards" },
    );
    sinking.onfinish = () => element.remove();
  }
}

/** An empty row, and those of its parts that are written to. */
function drawn() {
  const bar = make("span", { class: "bar", part: "bar" });
  const number = make("span", { class: "number" });
  const tie = make("span", { class: "tie", hidden: true },
    make("span", { "aria-hidden": "true" }, "="), make("span", { class: "unseen" }, " tied"));
  const mark = make("span", { class: "mark", part: "mark", hidden: true },
    make("span", { class: "sign", "aria-hidden": "true" }), make("span", { class: "unseen" }));
  const crown = draw("svg", { class: "crown", viewBox: "0 0 24 20", "aria-hidden": "true", focusable: "false" },
    draw("path", { d: "M2 5.5l5 4L12 2l5 7.5 5-4-2 10H4z" }), draw("path", { d: "M4 17h16v2H4z" }));
  const name = make("bdi", { class: "name", part: "name", dir: "auto" });
  const you = make("span", { class: "you", hidden: true }, "you");
  const score = make("td", { class: "score", part: "score", role: "cell" });
  const row = make("tr", { class: "row", part: "row", role: "row" },
    make("td", { class: "rank", part: "rank", role: "cell" },
      make("span", { class: "track", "aria-hidden": "true" }, bar), number, tie, mark),
    make("th", { class: "player", role: "rowheader", scope: "row" }, crown, name, you),
    score);
  return { row, bar, number, tie, mark, name, you, score };
}
