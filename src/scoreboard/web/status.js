/**
 * Says how the connection is: in a pill beside the title, and to a screen reader when it changes.
 *
 * In: the states of scoreboard.js. Out: a word or two that stay true, counting down while it waits.
 */

import { write } from "./markup.js";

/** After so many failed attempts in a row "reconnecting" would be too hopeful a word. */
const OFFLINE_TRIES = 6;
const TICK_MS = 250;

const TITLES = { 4401: "This board is private", 4404: "There is no such board" };
const REFUSALS = {
  4400: "The server did not understand this page. Loading it again may help.",
  4401: "A valid token is needed to watch it. To show it, put the element <live-scoreboard> on a page of your own and " +
    "give its property “token” a token of whoever reads that page.",
  4403: "Watching this board is not allowed from here.",
  4404: "Perhaps it was renamed.",
};

export class Status {
  #pill;
  #text;
  #more;
  #announcer;
  /** @type {import("./scoreboard.js").State | null} */ #state = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #countdown;
  #known = false;

  /**
   * @param {HTMLElement} pill
   * @param {HTMLElement} text inside it
   * @param {HTMLElement} more after that, where there is room
   * @param {import("./announcer.js").Announcer} announcer
   */
  constructor(pill, text, more, announcer) {
    this.#pill = pill;
    this.#text = text;
    this.#more = more;
    this.#announcer = announcer;
  }

  /** @param {import("./scoreboard.js").State} state */
  show(state) {
    const before = this.#state?.state;
    this.#state = state;
    this.end();
    if (state.state === "waiting") this.#countdown = setInterval(() => this.#write(), TICK_MS);
    this.#write();
    if (state.state === "stopped") this.#announcer.say(refusal(state).text);
    else if (state.state === "stale") this.#announcer.say("Reconnecting to the board.");
    else if (state.state === "waiting" && before === "live") this.#announcer.say("The connection was lost. Reconnecting.");
    else if (state.state === "live" && this.#known && before !== "live") this.#announcer.say("Live again.");
    this.#known ||= state.state === "live";
  }

  /** Stop counting down. */
  end() {
    clearInterval(this.#countdown);
  }

  #write() {
    const { state, tries, retryAt } = this.#state;
    const seconds = retryAt === null ? 0 : Math.ceil((retryAt - Date.now()) / 1000);
    const soon = seconds > 0 ? `in ${seconds} s` : "now";
    const offline = !navigator.onLine || tries >= OFFLINE_TRIES;
    const [look, text, more = ""] =
      state === "live" ? ["live", "Live"]
      : state === "stale" ? ["waiting", "Reconnecting", " to the board"]
      : state === "stopped" ? ["stopped", "Stopped"]
      : state === "resting" || state === "closed" ? ["connecting", "Paused"]
      : state === "waiting" ? (offline ? ["offline", "Offline", `, trying again ${soon}`] : ["waiting", `Reconnecting ${soon}`])
      : offline ? ["offline", "Offline", ", trying again…"]
      : tries > 0 ? ["waiting", "Reconnecting…"]
      : ["connecting", "Connecting…"];
    this.#pill.dataset.state = look;
    this.#pill.part.value = `status ${look}`;
    write(this.#text, text);
    write(this.#more, more);
  }
}

/** Why a board is not shown: a heading and a sentence. @param {import("./scoreboard.js").State} state */
export function refusal({ code, reason }) {
  return {
    title: TITLES[code] ?? "This board is not shown",
    text: REFUSALS[code] ?? (reason || `The server refused (${code}).`),
  };
}
