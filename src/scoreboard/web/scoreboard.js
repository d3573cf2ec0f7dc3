/**
 * Watch a scoreboard live, from any page: no dependencies, nothing drawn.
 *
 *     import { watch } from "https://scores.example/web/scoreboard.js";
 *
 *     const watching = watch("main", {
 *       onFrame: (frame) => console.table(frame.top),
 *       onState: ({ state }) => console.log(state),
 *     });
 *     // … later: watching.close();
 *
 * In: frames from `GET /boards/{board}/live` (WebSocket, subprotocol `scoreboard.v1`).
 * Out: `onFrame` with each newer board, whole; `onState` whenever the connection changes.
 * Never: an older board after a newer one, two connections at once, a hurry that tramples a server
 * which is just coming back (exponential back-off with full jitter).
 *
 * @typedef {{rank: number, userId: string, name: string, score: number}} Line
 *     One line of a board. Scores are whole numbers within ±(2^53 − 1). Names come from users: show as text.
 * @typedef {{type: "board", board: string, epoch: string, seq: number, at: string, total: number, top: Line[]}} Frame
 *     The visible top of a board at the moment `at`; `total` counts all players.
 * @typedef {"connecting" | "live" | "waiting" | "stopped" | "closed"} StateName
 *     `waiting`: lost, tries again at `retryAt`. `stopped`: the server refused for good (`code`, `reason`).
 *     `closed`: by `close()`.
 * @typedef {{state: StateName, tries: number, retryAt: number | null, code: number | null, reason: string}} State
 *     `tries`: failed attempts in a row. `retryAt`: milliseconds since 1970. `code`: of the last close.
 * @typedef {{onFrame?: (frame: Frame) => void, onState?: (state: State) => void}} Options
 */

const PROTOCOL = "scoreboard.v1";
/** The server sends something at least every 20 s; after this long without anything the line is dead. */
const SILENCE_MS = 30_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MOST_MS = 20_000;
/** A connection that lived this long was a good one: the next loss begins at the shortest back-off. */
const STEADY_MS = 5_000;
/** A server that asks for more patience than this is not taken at its word. */
const PATIENCE_MS = 60_000;

const BOARD_NAME = /^[a-z0-9][a-z0-9_-]{0,63}$/;

/**
 * How long to wait before the next attempt: evenly spread over 0 … 0.5 s × 2^tries, at most 20 s.
 * @param {number} tries failed attempts so far
 * @returns {number} milliseconds
 */
export function backoff(tries) {
  return Math.random() * Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** tries);
}

/**
 * Watch a board.
 * @param {string | URL} target a board's name on the server that this script came from, or the full
 *     address of its live end point: `https://scores.example/boards/main/live`
 * @param {Options} [options]
 * @returns {Watch}
 */
export function watch(target, options) {
  return new Watch(target, options);
}

/** One board, watched until `close()`. Connects at once. */
export class Watch {
  /** @type {URL} */ #url;
  /** @type {(frame: Frame) => void} */ #onFrame;
  /** @type {(state: State) => void} */ #onState;
  /** @type {StateName | null} */ #state = null;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {{epoch: string, seq: number} | null} the newest board that was taken */ #newest = null;
  /** @type {number | null} the server's own wish for the next attempt, in ms */ #wish = null;
  #tries = 0;
  #heardAt = 0;
  #steadyFrom = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #silence;

  /**
   * @param {string | URL} target see `watch`
   * @param {Options} [options]
   */
  constructor(target, { onFrame = () => {}, onState = () => {} } = {}) {
    // Relative to this script, so that a server behind a path prefix is found, too.
    this.#url = BOARD_NAME.test(String(target))
      ? new URL(`../boards/${target}/live`, import.meta.url)
      : new URL(target);
    this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
    this.#onFrame = onFrame;
    this.#onState = onState;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.addEventListener?.("visibilitychange", this.#wake);
    this.#connect();
  }

  /** End it. No call-back comes after the one that says `closed`. */
  close() {
    if (this.#state === "closed") return;
    this.#end("closed", null, "");
  }

  #connect = () => {
    this.#clear();
    this.#wish = null;
    this.#steadyFrom = Infinity;
    this.#tell("connecting");
    const url = new URL(this.#url);
    if (this.#newest) {
      url.searchParams.set("epoch", this.#newest.epoch);
      url.searchParams.set("seq", String(this.#newest.seq));
    }
    const socket = new WebSocket(url, PROTOCOL);
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event.code, event.reason);
    this.#socket = socket;
    this.#listen();
  };

  /** @param {unknown} data */
  #receive(data) {
    this.#listen();
    let frame;
    try {
      frame = JSON.parse(String(data));
    } catch {
      return; // not ours; a server that only babbles is given up by nobody but its operator
    }
    if (frame.type === "bye") {
      const wish = Number(frame.retryAfter);
      this.#wish = wish >= 0 ? Math.min(wish, PATIENCE_MS) : null;
    } else if (frame.type === "heartbeat") {
      this.#alive();
    } else if (frame.type === "board") {
      this.#alive();
      const newest = this.#newest;
      if (newest && newest.epoch === frame.epoch && newest.seq >= frame.seq) return;
      this.#newest = { epoch: frame.epoch, seq: frame.seq };
      this.#onFrame(frame);
    }
  }

  #alive() {
    if (this.#steadyFrom === Infinity) this.#steadyFrom = Date.now() + STEADY_MS;
    if (this.#state !== "live") this.#tell("live");
  }

  /** Begin to wait for the next frame. */
  #listen() {
    this.#heardAt = Date.now();
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(null, "silence"), SILENCE_MS);
  }

  /**
   * @param {number | null} code
   * @param {string} reason
   */
  #lost(code, reason) {
    if (code !== null && code >= 4400 && code <= 4499) {
      this.#end("stopped", code, reason);
      return;
    }
    this.#clear();
    if (Date.now() >= this.#steadyFrom) this.#tries = 0;
    const delay = this.#wish ?? backoff(this.#tries);
    this.#tries += 1;
    this.#retry = setTimeout(this.#connect, delay);
    this.#tell("waiting", Date.now() + delay, code, reason);
  }

  /** The network is back, or somebody looks again: no reason to wait, unless the server asked for it. */
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#state === "waiting" && this.#wish === null) this.#connect();
    else if (this.#socket && Date.now() - this.#heardAt > SILENCE_MS) this.#connect();
  };

  /**
   * @param {"stopped" | "closed"} state
   * @param {number | null} code
   * @param {string} reason
   */
  #end(state, code, reason) {
    this.#clear();
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.removeEventListener?.("visibilitychange", this.#wake);
    this.#tell(state, null, code, reason);
  }

  /** Let go of the connection and the timers. A dead socket's own `close` event may take minutes: not awaited. */
  #clear() {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    if (!this.#socket) return;
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  /**
   * @param {StateName} state
   * @param {number | null} [retryAt]
   * @param {number | null} [code]
   * @param {string} [reason]
   */
  #tell(state, retryAt = null, code = null, reason = "") {
    this.#state = state;
    this.#onState({ state, tries: this.#tries, retryAt, code, reason });
  }
}
