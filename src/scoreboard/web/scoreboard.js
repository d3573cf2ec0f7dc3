// @ts-self-types="./scoreboard.d.ts"
/**
 * Watch a scoreboard live, from any page or from Node.js: no dependencies, nothing drawn.
 *
 *     import { watch } from "https://scores.example/web/scoreboard.js";
 *
 *     const watching = watch("main", {
 *       onFrame: (frame) => console.table(frame.top),
 *       onState: ({ state }) => console.log(state),
 *     });
 *     // … later: watching.close();
 *
 * In: a board's frames, over WebSocket; where something blocks that, as Server-Sent Events; else by plain requests.
 * Out: `onFrame` with each newer board, whole; `onYou` with the user's own line; `onState` whenever the connection
 * changes. scoreboard.d.ts has the types.
 * Never: an older board after a newer one, a connection for a tab that nobody looks at, a hurry that tramples a
 * server which is just coming back (exponential back-off with full jitter).
 */

import { Link, WAYS } from "./ways.js";

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MOST_MS = 20_000;
/** A connection that lived this long was a good one: the next loss begins at the shortest back-off. */
const STEADY_MS = 5_000;
/** A server that asks for more patience than this is not taken at its word. */
const PATIENCE_MS = 60_000;
/** So often in a row the best way may fail, as it does while a server starts, before the next one is tried. */
const FAILURES = 2;
/** On a lesser way: when a better one is tried again, first and at most. Each failure doubles it. */
const BETTER_FIRST_MS = 30_000;
const BETTER_MOST_MS = 600_000;
/** A tab that has been hidden for so long lets go; most come back sooner. */
const HIDDEN_MS = 60_000;

const EVERY_WAY = /** @type {import("./scoreboard.js").Transport[]} */ (Object.keys(WAYS));
const EXPIRED = 4004;
const INVALID = 4401;
/** Codes from here on are the server's own word: the way to it is open. */
const EXPLAINED = 4000;
/** The server that this module came from; a path prefix counts. */
const HOME = new URL("..", import.meta.url);

/**
 * How long to wait before the next attempt: evenly spread over 0 … 0.5 s × 2^tries, at most 20 s.
 * @param {number} tries failed attempts so far
 * @returns {number} milliseconds
 */
export function backoff(tries) {
  return Math.random() * Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** tries);
}

/** Watch a board. @param {string} board @param {import("./scoreboard.js").Options} [options] */
export function watch(board, options) {
  return new Watch(board, options);
}

/** One board, watched until `close()`. Connects at once. */
export class Watch {
  #address;
  /** @type {import("./scoreboard.js").Transport[]} */ #ways;
  #token;
  #onFrame;
  #onYou;
  #onState;
  /** @type {import("./scoreboard.js").StateName | null} */ #state = null;
  /** @type {{epoch: string, seq: number} | null} the newest board that was taken */ #newest = null;
  /** @type {Link | null} */ #link = null;
  /** @type {Link | null} opened beside the link, to take its place once it speaks */ #candidate = null;
  #way = 0;
  #failures = 0;
  #probes = 0;
  #tries = 0;
  /** @type {number | null} the server's own wish for the next attempt, in ms */ #wish = null;
  #steadyFrom = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #better;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #rest;

  /** @param {string} board @param {import("./scoreboard.js").Options} [options] */
  constructor(board, options = {}) {
    const { server = HOME, token = null, transports = EVERY_WAY } = options;
    const base = String(server).replace(/\/*$/, "/");
    this.#address = new URL(`boards/${encodeURIComponent(board)}`, base);
    this.#ways = transports.filter((name) => name in WAYS);
    this.#token = token;
    this.#onFrame = options.onFrame ?? (() => {});
    this.#onYou = options.onYou ?? (() => {});
    this.#onState = options.onState ?? (() => {});
    this.#begin();
  }

  /** Go on as somebody else. The board stays; the new token's connection takes over when it is there. */
  set token(token) {
    this.#token = token;
    if (this.#link) this.#try(this.#way);
    else if (this.#state === "stopped") this.#begin();
  }

  /** End it. No call-back comes after the one that says `closed`. */
  close() {
    if (this.#state !== "closed") this.#end("closed", null, "");
  }

  #begin() {
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#look);
    this.#connect();
    this.#look();
  }

  #connect = () => {
    this.#letGo();
    this.#wish = null;
    this.#steadyFrom = Infinity;
    this.#tell("connecting");
    this.#link = this.#dial(this.#way);
  };

  #dial(way) {
    const line = { address: this.#address, newest: this.#newest, token: this.#token };
    const link = new Link(WAYS[this.#ways[way]], line, {
      heard: (message) => {
        if (link === this.#candidate && message.type !== "bye") this.#promote(way);
        this.#receive(link, message);
      },
      lost: (end) => (link === this.#link || way === this.#way || refused(end.code) ? this.#lost(end) : this.#failed()),
    });
    return link;
  }

  #receive(link, message) {
    if (message.type === "bye") {
      const wish = Number(message.retryAfter);
      if (link === this.#link) this.#wish = wish >= 0 ? Math.min(wish, PATIENCE_MS) : null;
    } else if (message.type === "heartbeat") {
      this.#alive(message.stale);
    } else if (message.type === "you") {
      this.#onYou(message);
    } else if (message.type === "board") {
      this.#alive(message.stale);
      const newest = this.#newest;
      if (newest && newest.epoch === message.epoch && newest.seq >= message.seq) return;
      this.#newest = { epoch: message.epoch, seq: message.seq };
      this.#onFrame(message);
    }
  }

  /** @param {boolean} [stale] the server itself has lost sight of the board */
  #alive(stale) {
    if (this.#steadyFrom === Infinity) {
      this.#steadyFrom = Date.now() + STEADY_MS;
      this.#failures = 0;
      this.#seekBetter();
    }
    const state = stale ? "stale" : "live";
    if (this.#state !== state) this.#tell(state);
  }

  /** @param {import("./ways.js").End} end */
  #lost({ code = null, reason = "", wish = null, busy = false }) {
    // No use in showing such a token again; a public board can do without.
    const useless = code === INVALID || (code === EXPIRED && typeof this.#token !== "function");
    if (useless && this.#token !== null) this.#token = null;
    else if (refused(code)) return this.#end("stopped", code, reason);
    const { spoke } = this.#link;
    this.#letGo();
    if (Date.now() >= this.#steadyFrom) this.#tries = 0;
    if (!spoke && !(code >= EXPLAINED)) this.#choose(busy);
    this.#wish ??= wish && Math.min(wish, PATIENCE_MS);
    const delay = this.#wish || backoff(this.#tries);
    this.#tries += 1;
    this.#retry = setTimeout(this.#connect, delay);
    this.#tell("waiting", Date.now() + delay, code, reason);
  }

  /** Nothing came by this way. When the last one fails, too, nobody is there: the best is tried first again. */
  #choose(busy) {
    this.#failures += 1;
    if (busy) this.#way = 0;
    else if (this.#way > 0 || this.#failures >= FAILURES) this.#way = (this.#way + 1) % this.#ways.length;
    else return;
    this.#failures = 0;
  }

  /** On a lesser way, look now and then whether a better one is open again. */
  #seekBetter() {
    clearTimeout(this.#better);
    if (this.#way === 0) return;
    const delay = Math.min(BETTER_MOST_MS, BETTER_FIRST_MS * 2 ** this.#probes);
    this.#better = setTimeout(() => this.#try(this.#probes++ % this.#way), delay);
  }

  #try(way) {
    this.#candidate?.close();
    this.#candidate = this.#dial(way);
  }

  #promote(way) {
    this.#link?.close();
    this.#link = this.#candidate;
    this.#candidate = null;
    this.#probes = way === this.#way ? this.#probes : 0;
    this.#way = way;
    this.#wish = null;
    this.#steadyFrom = Infinity;
    this.#state = null; // tell it again: by another way
  }

  /** A better way is still closed. */
  #failed() {
    this.#candidate = null;
    this.#seekBetter();
  }

  /** Somebody looks, or has stopped looking. */
  #look = () => {
    clearTimeout(this.#rest);
    if (globalThis.document?.visibilityState === "hidden") {
      this.#rest = setTimeout(() => {
        this.#letGo();
        this.#tell("resting");
      }, HIDDEN_MS);
    } else if (this.#state === "resting") {
      this.#connect();
    } else {
      this.#wake();
    }
  };

  /** The network is back, or somebody looks again: no reason to wait, unless the server asked for it. */
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#state === "waiting" && this.#wish === null) this.#connect();
    else if (this.#link?.silent) this.#connect();
  };

  /**
   * @param {"stopped" | "closed"} state
   * @param {number | null} code
   * @param {string} reason
   */
  #end(state, code, reason) {
    this.#letGo();
    clearTimeout(this.#rest);
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#look);
    this.#tell(state, null, code, reason);
  }

  /** Let go of connections and timers. */
  #letGo() {
    clearTimeout(this.#retry);
    clearTimeout(this.#better);
    this.#link?.close();
    this.#candidate?.close();
    this.#link = this.#candidate = null;
  }

  /**
   * @param {import("./scoreboard.js").StateName} state
   * @param {number | null} [retryAt]
   * @param {number | null} [code]
   * @param {string} [reason]
   */
  #tell(state, retryAt = null, code = null, reason = "") {
    this.#state = state;
    this.#onState({ state, transport: this.#ways[this.#way], tries: this.#tries, retryAt, code, reason });
  }
}

const refused = (code) => code >= 4400 && code <= 4499;
