/**
 * One connection for all elements of a page that show the same board to the same reader.
 *
 * In: what an element wants to watch. Out: a share in a `Watch`; whoever comes later is told at once how things are.
 * Never: a connection that nobody has a share in.
 *
 * @typedef {{board: string, server: string, token: import("./scoreboard.js").Token}} Wanted
 * @typedef {"onState" | "onFrame" | "onYou"} Kind
 * @typedef {Required<Pick<import("./scoreboard.js").Options, Kind>>} Ears
 * @typedef {{wanted: Wanted, watch: Watch, shares: Set<Ears>, told: Map<Kind, any>}} Line `told`: the newest of each kind
 */

import { Watch } from "./scoreboard.js";

/** @type {Kind[]} */ const KINDS = ["onState", "onFrame", "onYou"];
/** @type {Set<Line>} */ const lines = new Set();

/** A board, watched until `close()`, as a `Watch` of one's own would. */
export class Share {
  #ears;
  /** @type {Line} */ #line;

  /** @param {Wanted} wanted @param {Ears} ears */
  constructor(wanted, ears) {
    this.#ears = ears;
    this.#join(wanted);
  }

  /** Go on as somebody else: without a gap if nobody shares this, else apart. */
  set token(token) {
    const line = this.#line;
    if (line.shares.size === 1) {
      line.wanted = { ...line.wanted, token };
      line.told.delete("onYou");
      line.watch.token = token;
    } else {
      this.#leave();
      this.#join({ ...line.wanted, token });
    }
  }

  /** No call-back comes after the one that says `closed`. */
  close() {
    const state = this.#line.told.get("onState");
    this.#leave();
    this.#ears.onState({ ...state, state: "closed", retryAt: null, code: null, reason: "" });
  }

  #join(wanted) {
    const found = [...lines].find((line) => same(line.wanted, wanted) && line.told.get("onState")?.state !== "stopped");
    this.#line = found ?? begun(wanted);
    this.#line.shares.add(this.#ears);
    for (const kind of KINDS) if (this.#line.told.has(kind)) this.#ears[kind](this.#line.told.get(kind));
  }

  #leave() {
    const line = this.#line;
    line.shares.delete(this.#ears);
    if (line.shares.size > 0) return;
    lines.delete(line);
    line.watch.close();
  }
}

function begun({ board, server, token }) {
  const shares = new Set();
  const told = new Map();
  const [onState, onFrame, onYou] = KINDS.map((kind) => (news) => {
    told.set(kind, news);
    for (const ears of [...shares]) if (shares.has(ears)) ears[kind](news);
  });
  const watch = new Watch(board, { server, token, onState, onFrame, onYou });
  const line = { wanted: { board, server, token }, watch, shares, told };
  lines.add(line);
  return line;
}

const same = (one, other) => one.board === other.board && one.server === other.server && one.token === other.token;
