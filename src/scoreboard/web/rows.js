/**
 * The rows of the board: puts each frame on the screen, and shows how it came about.
 *
 * In: frames. Out: table rows in the frame's order; rows glide, scores count, marks say who rose or fell.
 * Never: markup made from a name, motion for those who asked for none, a number that is not in the end
 * exactly the frame's.
 */

import { number } from "./words.js";

const GLIDE_MS = 520;
const COUNT_MS = 700;
const MARK_MS = 6_000;
const FADE_MS = 600;
const EASE = "cubic-bezier(.2, .75, .2, 1)";
/** Rows that come in one after the other at first; below them nobody sees it. */
const STAGGERED = 12;
/** Longer than this in characters, a score gets a line of its own on a small screen. */
const WIDE_SCORE = 11;

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const easeOut = (t) => 1 - (1 - t) ** 3;

/** Will anybody see a motion now, and like it? */
export const mayMove = () => !calm.matches && !document.hidden;

export class Rows {
  #body;
  #template;
  /** @type {Map<string, Row>} by user id */ #rows = new Map();
  /** @type {Set<Row>} whose score is counting */ #counting = new Set();
  #tick = 0;

  /**
   * @param {HTMLElement} body
   * @param {HTMLTemplateElement} template
   */
  constructor(body, template) {
    this.#body = body;
    this.#template = template;
  }

  /**
   * @param {import("./scoreboard.js").Frame} frame
   * @param {{order: string, me: string | null}} how the board's order, and the visitor's user id
   */
  show(frame, { order, me }) {
    const moving = mayMove();
    const first = this.#rows.size === 0;
    const tops = new Map();
    if (moving) for (const row of this.#rows.values()) tops.set(row, row.element.offsetTop);

    this.#dismiss(new Set(frame.top.map((line) => line.userId)), tops);
    const ties = countedBy(frame.top, (line) => line.rank);
    const best = frame.top[0]?.score ?? 0;
    let wide = false;
    let next = this.#body.firstElementChild;
    frame.top.forEach((line, place) => {
      let row = this.#rows.get(line.userId);
      const entered = !row;
      if (!row) this.#rows.set(line.userId, (row = new Row(this.#template)));
      if (row.element === next) next = next.nextElementSibling;
      else this.#body.insertBefore(row.element, next);
      if (!first) row.mark(place, entered);
      row.place = place;
      row.describe(line, ties.get(line.rank) > 1, line.userId === me);
      wide ||= number(line.score).length > WIDE_SCORE;
      row.aim(line.score, shareOf(line.score, best, order), moving && !entered);
      if (row.counting) this.#counting.add(row);
    });
    this.#body.classList.toggle("wide", wide);

    if (moving) {
      const end = this.#body.offsetHeight;
      for (const row of this.#rows.values()) {
        if (tops.has(row)) row.glide(tops.get(row) - row.element.offsetTop);
        else if (first) row.appear(row.place);
        else row.enter(end - row.element.offsetTop);
      }
    }
    if (this.#counting.size && !this.#tick) this.#tick = requestAnimationFrame(this.#count);
  }

  /**
   * @param {Set<string>} staying user ids
   * @param {Map<Row, number>} tops where rows were; empty when nothing shall move
   */
  #dismiss(staying, tops) {
    for (const [userId, row] of this.#rows) {
      if (staying.has(userId)) continue;
      this.#rows.delete(userId);
      this.#counting.delete(row);
      row.forget();
      if (tops.has(row)) row.leave(this.#body, tops.get(row));
      else row.element.remove();
    }
  }

  #count = (now) => {
    for (const row of this.#counting) {
      row.count(now);
      if (!row.counting) this.#counting.delete(row);
    }
    this.#tick = this.#counting.size ? requestAnimationFrame(this.#count) : 0;
  };
}

/** One player's row. */
class Row {
  place = 0;
  counting = false;
  #parts;
  #score = 0; // as shown now
  #share = 0;
  #from = { score: 0, share: 0 };
  #goal = { score: NaN, share: NaN };
  #since = 0;
  /** @type {number | null} the place that the mark counts from; Infinity: was not on the board */ #base = null;
  #fading = 0;

  /** @param {HTMLTemplateElement} template */
  constructor(template) {
    const element = template.content.firstElementChild.cloneNode(true);
    const part = (name) => element.querySelector(`.${name}`);
    this.element = element;
    this.#parts = {
      number: part("number"), tie: part("tie"), name: part("name"), you: part("you"),
      score: part("score"), bar: part("bar"), mark: part("mark"),
    };
  }

  /** Everything but the score. @param {import("./scoreboard.js").Line} line @param {boolean} tied @param {boolean} mine */
  describe(line, tied, mine) {
    const { number: rank, tie, name, you } = this.#parts;
    write(rank, number(line.rank));
    if (name.textContent !== line.name) name.textContent = name.title = line.name;
    tie.hidden = !tied;
    you.hidden = !mine;
    this.element.classList.toggle("mine", mine);
    this.element.dataset.rank = String(line.rank);
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
    write(this.#parts.score, number(score));
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
    const steps = number(Math.abs(rise));
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

/** How far the bar reaches: the part of the best score, 0 to 1. Below zero there is nothing to compare. */
function shareOf(score, best, order) {
  const [small, large] = order === "asc" ? [best, score] : [score, best];
  return small > 0 && large > 0 ? Math.min(1, small / large) : Number(score === best && best > 0);
}

function countedBy(items, key) {
  const counts = new Map();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1);
  return counts;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
