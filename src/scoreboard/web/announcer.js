/**
 * Tells a screen reader what happens on the board, in one sentence, and never in a flood.
 *
 * In: every frame, and news about the connection. Out: text in a polite live region, at most every 10 s,
 * always about the newest board. What nobody would miss (a score that moves nobody) is not told.
 */

import { isolated } from "./words.js";

const PAUSE_MS = 10_000;

export class Announcer {
  #region;
  #words;
  /** @type {import("./scoreboard.js").Frame | null} */ #told = null;
  /** @type {import("./scoreboard.js").Frame | null} */ #frame = null;
  #news = "";
  #earliest = 0;
  #timer = 0;

  /** @param {HTMLElement} region an element with `aria-live="polite"` @param {import("./words.js").Words} words */
  constructor(region, words) {
    this.#region = region;
    this.#words = words;
  }

  /** @param {import("./scoreboard.js").Frame} frame */
  board(frame) {
    this.#frame = frame;
    this.#soon();
  }

  /** News about the connection; the newest replaces what was not told yet. @param {string} news */
  say(news) {
    this.#news = news;
    this.#soon();
  }

  #soon() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      const text = [this.#news, this.#changes()].filter(Boolean).join(" ");
      if (!text) return;
      this.#news = "";
      this.#region.textContent = text;
      this.#earliest = Date.now() + PAUSE_MS;
    }, Math.max(0, this.#earliest - Date.now()));
  }

  #changes() {
    const frame = this.#frame;
    const told = this.#told;
    const { counted, number, ordinal } = this.#words;
    if (!frame || frame === told) return "";
    this.#told = frame;
    const [leader] = frame.top;
    if (!leader) return told === null || told.top.length ? "No scores yet." : "";
    const leads = `${isolated(leader.name)} leads with ${number(leader.score)}`;
    if (!told?.top.length) return `${leads}; ${counted(frame.total, "player")}.`;

    const placeBefore = new Map(told.top.map((line, place) => [line.userId, place]));
    let riser = null;
    let most = 0;
    for (const [place, line] of frame.top.entries()) {
      const rise = (placeBefore.get(line.userId) ?? told.top.length) - place;
      if (place > 0 && rise > most) [riser, most] = [line, rise];
    }
    const rose = riser && `${isolated(riser.name)} rose to ${ordinal(riser.rank)}`;
    if (leader.userId !== told.top[0].userId) return rose ? `${leads}; ${rose}.` : `${leads}.`;
    return rose ? `${leads}; ${rose}.` : "";
  }
}
