/** Types of live-scoreboard.js, the element `<live-scoreboard>`. Keep it beside scoreboard.d.ts. */

import type { Frame, State, Token, You } from "./scoreboard.js";

/** A board as `GET /boards` lists it. */
export interface BoardInfo {
  readonly board: string;
  readonly title: string;
  readonly top: number;
  readonly rank: "ordinal" | "competition" | "dense";
  readonly order: "desc" | "asc";
  readonly public: boolean;
  /** Types of actions that count on it. */
  readonly actions: readonly string[];
}

/** What `GET /boards` says. */
export interface Boards {
  readonly boards: readonly BoardInfo[];
  readonly demo: { readonly action: string } | null;
}

/** What the element tells, beside the events of every element. None of them bubbles. */
export interface LiveScoreboardEventMap extends HTMLElementEventMap {
  boards: CustomEvent<Boards>;
  frame: CustomEvent<Frame>;
  you: CustomEvent<You>;
  state: CustomEvent<State>;
}

/** Attributes: `board`, `server`, `rows`, `heading`, `player`, `theme`, `scale`, `lang`. */
export declare class LiveScoreboard extends HTMLElement {
  /** The board that is shown: the attribute, else the server's first. */
  board: string;
  /** Who watches: needed for private boards and for the own line. Never an attribute. */
  get token(): Token;
  set token(token: Token);
  addEventListener<Name extends keyof LiveScoreboardEventMap>(
    type: Name,
    listener: (this: LiveScoreboard, event: LiveScoreboardEventMap[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "live-scoreboard": LiveScoreboard;
  }
}
