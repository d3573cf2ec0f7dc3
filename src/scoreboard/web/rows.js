/**
 * The rows of the board: puts each frame on the screen, and shows how it came about.
 *
 * In: frames. Out: table rows in the frame's order; rows glide, scores count, marks say who rose or fell.
 * Never: motion for those who asked for none, a row that is made anew while its player stays on the board.
 */

import { Row, mayMove } from "./row.js";

/** Longer than this in characters, a score gets a line of its own on a small screen, on a very small one. */
const WIDE_SCORE = 11;
const LONG_SCORE = 6;

export class Rows {
  #body;
  #words;
  /** @type {Map<string, Row>} by user id */ #rows = new Map();
  /** @type {Set<Row>} whose score is counting */ #counting = new Set();
  #tick = 0;

  /**
   * @param {HTMLElement} body
   * @param {import("./words.js").Words} words
   */
  constructor(body, words) {
    this.#body = body;
    this.#words = words;
  }

  /**
   * @param {readonly import("./scoreboard.js").Line[]} top
   * @param {{order: string, me: string | null}} how the board's order, and the reader's user id
   */
  show(top, { order, me }) {
    const moving = mayMove();
    const first = this.#rows.size === 0;
    const tops = new Map();
    if (moving) for (const row of this.#rows.values()) tops.set(row, row.element.offsetTop);

    this.#dismiss(new Set(top.map((line) => line.userId)), tops);
    const ties = countedBy(top, (line) => line.rank);
    const best = top[0]?.score ?? 0;
    let longest = 0;
    let next = this.#body.firstElementChild;
    top.forEach((line, place) => {
      let row = this.#rows.get(line.userId);
      const entered = !row;
      if (!row) this.#rows.set(line.userId, (row = new Row(this.#words)));
      if (row.element === next) next = next.nextElementSibling;
      else this.#body.insertBefore(row.element, next);
      if (!first) row.mark(place, entered);
      row.place = place;
      row.describe(line, ties.get(line.rank) > 1, line.userId === me);
      longest = Math.max(longest, this.#words.number(line.score).length);
      row.aim(line.score, shareOf(line.score, best, order), moving && !entered);
      if (row.counting) this.#counting.add(row);
    });
    this.#body.classList.toggle("wide", longest > WIDE_SCORE);
    this.#body.classList.toggle("long", longest > LONG_SCORE);

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

  /** Take all rows away at once: what comes next is another board. */
  clear() {
    this.#dismiss(new Set(), new Map());
    this.#body.replaceChildren(); // those that were just leaving, too
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
