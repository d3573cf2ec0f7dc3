// @ts-self-types="./live-scoreboard.d.ts"
/**
 * `<live-scoreboard board="main">`: a live board on any page, with one script tag and no dependency.
 *
 *     <script type="module" src="https://scores.example/web/live-scoreboard.js"></script>
 *     <live-scoreboard board="main"></live-scoreboard>
 *
 * In: attributes, the property `token`, and what the server says. Out: what a reader sees and hears, and the events
 * `boards`, `frame`, `you` and `state`. docs/clients.md describes all of them.
 * Never: markup made from text, inline styles, a request to another host than the server's.
 */

import { Announcer } from "./announcer.js";
import { make, write } from "./markup.js";
import { Rows } from "./rows.js";
import { backoff } from "./scoreboard.js";
import { Share } from "./shared.js";
import { Status, refusal } from "./status.js";
import { style } from "./style.js";
import { subject } from "./ways.js";
import { Words } from "./words.js";

/** The server that this module came from. */
const HOME = String(new URL("..", import.meta.url));
/** Times the usual size: smaller cannot be read, larger fits nowhere. */
const SCALE = { least: .2, most: 10 };

export class LiveScoreboard extends HTMLElement {
  static observedAttributes = ["board", "server", "rows", "heading", "player", "scale"];

  #parts = drawn();
  #words = new Words();
  #announcer = new Announcer(this.#parts.announcer, this.#words);
  #status = new Status(this.#parts.status, this.#parts.statusText, this.#parts.statusMore, this.#announcer);
  #rows = new Rows(this.#parts.rows, this.#words);
  /** @type {import("./scoreboard.js").Token} */ #token = null;
  /** @type {string | null} the user whom the token is about */ #user = null;
  /** @type {AbortController | null} while it is in a page */ #life = null;
  /** @type {Share | null} */ #watch = null;
  /** @type {import("./live-scoreboard.js").BoardInfo[]} */ #boards = [];
  /** @type {import("./scoreboard.js").Frame | null} */ #frame = null;
  /** @type {import("./scoreboard.js").StateName} */ #state = "connecting";

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style];
    root.append(this.#parts.whole);
    if (Object.hasOwn(this, "token")) { // set before this class was known
      this.#token = this.token;
      delete this.token;
    }
  }

  /** The board that is shown: the attribute, else the server's first. */
  get board() {
    return this.getAttribute("board") || this.#boards[0]?.board || "";
  }

  set board(name) {
    this.setAttribute("board", name);
  }

  /** Who watches: needed for private boards and for the own line. A property only, so that it never stands in a page. */
  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    this.#parts.you.hidden = true;
    if (!this.#life) return;
    if (this.#watch) this.#watch.token = token;
    this.#list(this.#life.signal);
  }

  connectedCallback() {
    this.#words.speak(this.lang);
    this.#life = new AbortController();
    if (this.getAttribute("board")) this.#follow();
    this.#list(this.#life.signal);
  }

  disconnectedCallback() {
    const watch = this.#watch;
    this.#life?.abort();
    this.#status.end();
    this.#life = this.#watch = null;
    watch?.close(); // last: whoever hears of it may put the element back
  }

  attributeChangedCallback(name, before, now) {
    if (before === now) return;
    if (name === "scale") {
      const scale = Number(now);
      const sound = scale >= SCALE.least && scale <= SCALE.most;
      this.#parts.whole.style.fontSize = sound ? `${scale}em` : "";
    }
    if (!this.#life) return;
    if (name === "board" || name === "server") {
      this.disconnectedCallback();
      this.#forget();
      this.connectedCallback();
    } else if (name === "heading") {
      this.#showHeading();
    } else if (this.#frame) {
      this.#show(this.#frame);
    }
  }

  get #server() {
    return this.getAttribute("server")?.replace(/\/*$/, "/") || HOME;
  }

  #follow() {
    this.#watch = new Share({ board: this.board, server: this.#server, token: this.#token }, {
      onFrame: (frame) => {
        this.#frame = frame;
        this.#show(frame);
        this.#announcer.board(frame);
        this.#tell("frame", frame);
      },
      onYou: (you) => {
        this.#showYou(you);
        this.#tell("you", you);
      },
      onState: (state) => {
        this.#showState(state);
        this.#tell("state", state);
      },
    });
  }

  /** Titles and orders of the boards, asked for until there is an answer. @param {AbortSignal} signal */
  async #list(signal) {
    for (let tries = 1; !signal.aborted; tries += 1) {
      const listed = await this.#ask(signal).catch(() => null);
      if (signal.aborted) return;
      if (listed) {
        this.#boards = listed.boards;
        this.#showHeading();
        if (this.#frame) this.#show(this.#frame);
        if (!this.#watch) this.#follow();
        this.#tell("boards", listed);
        return;
      }
      const delay = backoff(tries);
      const retryAt = Date.now() + delay;
      if (!this.#watch) {
        this.#showState({ state: "waiting", transport: "polling", tries, retryAt, code: null, reason: "" });
      }
      await new Promise((done) => setTimeout(done, delay));
    }
  }

  async #ask(signal) {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    const ask = (headers) => fetch(`${this.#server}boards`, { headers, signal, credentials: "omit" });
    let answer = await ask(token ? { authorization: `Bearer ${token}` } : {});
    this.#user = answer.status === 401 ? null : subject(token);
    if (answer.status === 401) answer = await ask({}); // the public ones at least
    return answer.ok ? answer.json() : null;
  }

  #showHeading() {
    const found = this.#boards.find(({ board }) => board === this.board);
    const heading = this.getAttribute("heading") ?? found?.title ?? this.board;
    write(this.#parts.title, heading);
    this.#parts.title.hidden = heading === "";
    this.#parts.table.ariaLabel = this.#parts.board.ariaLabel = heading || this.board;
  }

  /** Nothing of one board stays when another is to be shown. */
  #forget() {
    const { skeleton, table, empty, stopped, you, board, players, updated } = this.#parts;
    this.#frame = null;
    this.#rows.clear();
    skeleton.hidden = false;
    table.hidden = empty.hidden = stopped.hidden = you.hidden = true;
    board.ariaBusy = "true";
    players.replaceChildren();
    updated.replaceChildren();
  }

  /** @param {import("./scoreboard.js").Frame} frame */
  #show(frame) {
    const { skeleton, table, empty, board, players } = this.#parts;
    const most = Number(this.getAttribute("rows")) || Infinity;
    const order = this.#boards.find((one) => one.board === frame.board)?.order ?? "desc";
    skeleton.hidden = true;
    table.hidden = frame.top.length === 0;
    empty.hidden = !table.hidden;
    board.ariaBusy = "false";
    this.#rows.show(frame.top.slice(0, most), { order, me: this.getAttribute("player") ?? this.#user });
    write(players, this.#words.counted(frame.total, "player"));
    this.#showUpdated();
  }

  /** @param {import("./scoreboard.js").You} you */
  #showYou({ rank, score, toNext }) {
    const { number, counted } = this.#words;
    const next = toNext === null ? "at the top" : `${number(toNext)} to the next rank`;
    write(
      this.#parts.you,
      rank === null || score === null ? "You have no score yet"
      : ["You: rank " + number(rank), counted(score, "point"), next].join(" · "),
    );
    this.#parts.you.hidden = false;
  }

  /** @param {import("./scoreboard.js").State} state */
  #showState(state) {
    const { whole, stopped, stoppedTitle, stoppedText, skeleton, board } = this.#parts;
    this.#state = state.state;
    this.#status.show(state);
    whole.classList.toggle("stale", this.#frame !== null && state.state !== "live");
    stopped.hidden = state.state !== "stopped";
    if (!stopped.hidden) {
      const { title, text } = refusal(state);
      write(stoppedTitle, title);
      write(stoppedText, text);
      skeleton.hidden = true;
      board.ariaBusy = "false";
    }
    this.#showUpdated();
  }

  #showUpdated() {
    if (!this.#frame) return;
    const { at } = this.#frame;
    const moment = make("time", { datetime: at }, this.#words.time(new Date(at)));
    this.#parts.updated.replaceChildren(this.#state === "live" ? "Updated " : "Last update ", moment);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Everything that is inside, still empty, and the parts that are written to. */
function drawn() {
  const heading = (text) => make("th", { role: "columnheader", scope: "col" }, text);
  const title = make("h2", { part: "title", dir: "auto" });
  const players = make("p", { class: "players", part: "players", id: "players" });
  const statusText = make("span", { id: "link-text" }, "Connecting…");
  const statusMore = make("span", { class: "more" });
  const status = make("p", { class: "link", part: "status connecting", id: "link", "data-state": "connecting" },
    make("span", { class: "dot", "aria-hidden": "true" }), make("span", {}, statusText, statusMore));
  const skeleton = make("div", { class: "skeleton", "aria-hidden": "true" });
  const rows = make("tbody", { role: "rowgroup", id: "rows" });
  const table = make("table", { class: "rows", part: "table", role: "table", hidden: true },
    make("thead", { role: "rowgroup", part: "head" },
      make("tr", { role: "row" }, heading("Rank"), heading("Player"), heading("Score"))),
    rows);
  const empty = make("div", { class: "notice", part: "notice", id: "empty", hidden: true },
    make("slot", { name: "empty" }, make("h3", {}, "No scores yet"),
      make("p", {}, "The first one shows up here the moment it counts.")));
  const stoppedTitle = make("h3");
  const stoppedText = make("p");
  const stopped = make("div", { class: "notice", part: "notice", id: "stopped", hidden: true }, stoppedTitle, stoppedText);
  const you = make("p", { class: "own", part: "you", id: "you", hidden: true });
  const board = make("section", { class: "board", "aria-busy": "true" }, skeleton, table, empty, stopped, you);
  const updated = make("p", { id: "updated" });
  const announcer = make("p", { class: "unseen", id: "announcer", role: "status", "aria-live": "polite", "aria-atomic": "true" });
  const whole = make("div", { class: "whole", lang: "en" },
    make("header", { class: "masthead", part: "header" },
      make("slot", { name: "title" }, title), players, status, make("slot", { name: "nav" })),
    make("div", { class: "stage" }, board, make("slot", { name: "aside" })),
    make("footer", { class: "footer", part: "updated" }, updated),
    announcer);
  return { whole, title, players, status, statusText, statusMore, skeleton, table, rows, empty, stopped, stoppedTitle, stoppedText, you, board, updated, announcer };
}

// A page may load this from two servers; the first one draws for both.
if (!customElements.get("live-scoreboard")) customElements.define("live-scoreboard", LiveScoreboard);
