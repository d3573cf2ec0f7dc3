/** Types of scoreboard.js. Keep the two files beside each other. */

/** One line of a board. Scores are whole numbers within ±(2^53 − 1). Names come from users: show as text. */
export interface Line {
  readonly rank: number;
  readonly userId: string;
  readonly name: string;
  readonly score: number;
}

/** The visible top of a board at the moment `at`. */
export interface Frame {
  readonly type: "board";
  readonly board: string;
  readonly epoch: string;
  readonly seq: number;
  /** RFC 3339, UTC. */
  readonly at: string;
  /** How many players have an entry. */
  readonly total: number;
  /** Best first. */
  readonly top: readonly Line[];
}

/** The line of the user whose token was given. Without an entry the numbers are `null` and the lists empty. */
export interface You {
  readonly type: "you";
  readonly board: string;
  readonly rank: number | null;
  readonly score: number | null;
  /** Points that take the next rank; `null` at the top. */
  readonly toNext: number | null;
  /** Up to two lines on each side, best first. */
  readonly above: readonly Line[];
  readonly below: readonly Line[];
}

/**
 * - `connecting`: an attempt is under way.
 * - `live`: what was shown last is the newest there is.
 * - `stale`: connected, but the server has lost sight of the board: "reconnecting to the board".
 * - `waiting`: lost; tries again at `retryAt`.
 * - `resting`: let go, for the tab has been hidden for a minute. Goes on by itself when somebody looks.
 * - `stopped`: the server refused for good, see `code` and `reason`.
 * - `closed`: by `close()`.
 */
export type StateName = "connecting" | "live" | "stale" | "waiting" | "resting" | "stopped" | "closed";

/** How frames come, the best first. */
export type Transport = "websocket" | "events" | "polling";

export interface State {
  readonly state: StateName;
  readonly transport: Transport;
  /** Failed attempts in a row. */
  readonly tries: number;
  /** Milliseconds since 1970. */
  readonly retryAt: number | null;
  /** With which close code it was lost or refused. */
  readonly code: number | null;
  readonly reason: string;
}

/** A JWT or a key; or a function that fetches one, called before each connection. It never goes into an address. */
export type Token = string | null | (() => string | null | Promise<string | null>);

export interface Options {
  /** The server's address; by default where this module came from. */
  server?: string | URL;
  /** Needed for private boards, and for `onYou`. */
  token?: Token;
  /** Which ways may be used; by default all that there are here. */
  transports?: readonly Transport[];
  /** Each newer board, whole. */
  onFrame?: (frame: Frame) => void;
  /** The own line, whenever it changes. */
  onYou?: (you: You) => void;
  onState?: (state: State) => void;
}

/** One board, watched until `close()`. */
export declare class Watch {
  constructor(board: string, options?: Options);
  /** Go on as somebody else. */
  set token(token: Token);
  /** End it. No call-back comes after the one that says `closed`. */
  close(): void;
}

/** Watch a board. */
export declare function watch(board: string, options?: Options): Watch;

/** How long to wait, in milliseconds, after so many failed attempts: at random, up to 0.5 s × 2^tries, at most 20 s. */
export declare function backoff(tries: number): number;
