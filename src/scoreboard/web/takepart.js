/**
 * The demo's panel: a visitor joins under a name and scores with a button.
 *
 * In: what `GET /boards` says about the demo. Out: `POST /demo/join`, then `POST /update-score`; the board is told
 * who watches, and shows where the visitor stands.
 * The token lives in this tab only (sessionStorage) and never in an address. A try that may or may not have
 * counted is sent again under the same actionId, so it counts once however often it is sent.
 */

import { make } from "./markup.js";
import { mayMove } from "./row.js";
import { backoff } from "./scoreboard.js";
import { Words } from "./words.js";

const TRIES = 5;
/** Presses that may be on their way at the same time: more than a quick thumb needs. */
const PENDING_MOST = 8;
const STORE = "scoreboard.visitor";
const { counted, number, time } = new Words();

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An answer that is not a success, as RFC 9457 tells it. */
class Refusal extends Error {
  constructor(problem, status, retryAfter) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.title = problem.title || this.message;
    this.status = status;
    this.code = problem.code;
    this.retryable = problem.retryable ?? status >= 500;
    this.retryAfter = retryAfter;
  }
}

export class TakePart {
  #board;
  #cooldown;
  /** @type {{userId: string, name: string, token: string, action: string} | null} */ #visitor = null;
  #pending = 0;
  #presses = 0;
  #shownPress = 0;
  #ready = 0;

  /**
   * @param {import("./live-scoreboard.js").LiveScoreboard} board
   * @param {{action: string, cooldown?: number}} demo `cooldown`: seconds between two presses that count
   */
  constructor(board, demo) {
    this.#board = board;
    this.#cooldown = demo.cooldown ?? 0;
    $("join").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#join();
    });
    $("score").addEventListener("click", () => this.#press());
    $("leave").addEventListener("click", () => {
      this.#become(null);
      this.#say("");
      $("name").focus();
    });
    const visitor = remembered();
    if (visitor) this.#become(visitor);
    $("takepart").hidden = false;
  }

  #become(visitor) {
    this.#visitor = visitor;
    if (visitor) sessionStorage.setItem(STORE, JSON.stringify(visitor));
    else sessionStorage.removeItem(STORE);
    $("join").hidden = visitor !== null;
    $("play").hidden = visitor === null;
    $("player").textContent = visitor?.name ?? "";
    if (visitor) this.#board.setAttribute("player", visitor.userId);
    else this.#board.removeAttribute("player");
    this.#board.token = visitor?.token ?? null;
  }

  async #join() {
    const button = $("join-button");
    const { value } = /** @type {HTMLInputElement} */ ($("name"));
    const name = value.trim().normalize("NFC");
    if (!name || button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    try {
      this.#become(await post("demo/join", { name }));
      this.#say("You are in. Press the button!");
      $("score").focus();
    } catch (error) {
      this.#say(worded(error), true);
    } finally {
      button.ariaDisabled = "false";
    }
  }

  async #press() {
    const visitor = this.#visitor;
    const wait = this.#ready - Date.now();
    if (wait > 0) return this.#say(`A moment: ready in ${Math.ceil(wait / 1000)} s.`);
    if (!visitor || this.#pending >= PENDING_MOST) return;
    this.#ready = Date.now() + this.#cooldown * 1000;
    const press = ++this.#presses;
    this.#pending += 1;
    let answer;
    let trouble;
    try {
      answer = await this.#score(visitor, `${visitor.action}:${crypto.randomUUID()}`);
    } catch (error) {
      trouble = error;
    }
    this.#pending -= 1;
    if (visitor.userId !== this.#visitor?.userId || press < this.#shownPress) return; // left, or older news
    this.#shownPress = press;
    if (answer) this.#tell(answer);
    else {
      if (trouble.status === 401) this.#become(null); // the token has run out: join again
      this.#say(worded(trouble), true);
    }
  }

  async #score(visitor, actionId) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await post("update-score", { userId: visitor.userId, actionId }, {
          Authorization: `Bearer ${visitor.token}`,
          Prefer: "wait=2",
        });
      } catch (error) {
        const retryable = !(error instanceof Refusal) || error.retryable;
        if (!retryable || tries === TRIES) throw error;
        this.#say("Sending it again…");
        await pause((error.retryAfter ?? 0) * 1000 + backoff(tries));
      }
    }
  }

  #tell(answer) {
    if (answer.status === "applied") {
      if (answer.points) float($("score"), `${answer.points > 0 ? "+" : ""}${number(answer.points)}`);
      const line = answer.boards?.[this.#board.board];
      const rank = line?.rank ? `, rank ${number(line.rank)}` : "";
      this.#say(`Counted: ${counted(line?.score ?? answer.points, "point")}${rank}.`);
    } else if (answer.status === "rejected") {
      const again = answer.retryAt ? ` Again from ${time(new Date(answer.retryAt))}.` : "";
      this.#say(`Not counted: ${answer.reason}.${again}`, true);
    } else if (answer.status === "accepted") {
      this.#say("Accepted: it will count in a moment.");
    } else {
      this.#say(`The score was ${answer.status}.`, true);
    }
  }

  #say(text, wrong = false) {
    const outcome = $("outcome");
    outcome.classList.toggle("wrong", wrong);
    if (outcome.textContent !== text) outcome.textContent = text;
  }
}

async function post(address, body, headers = {}) {
  const answer = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
  });
  const data = await answer.json().catch(() => ({}));
  if (answer.ok) return data;
  throw new Refusal(data, answer.status, Number(answer.headers.get("Retry-After")) || 0);
}

function worded(error) {
  return error instanceof Refusal ? error.title : "The server does not answer. Try again in a moment.";
}

function remembered() {
  try {
    const visitor = JSON.parse(sessionStorage.getItem(STORE));
    return visitor?.token && visitor.userId ? visitor : null;
  } catch {
    return null;
  }
}

/** The points, rising from the button. */
function float(button, text) {
  if (!mayMove()) return;
  const points = make("span", { class: "points", "aria-hidden": "true" }, text);
  button.append(points);
  points.animate(
    { opacity: [0, 1, 0], transform: ["translate(-50%, 0)", "translate(-50%, -120%)", "translate(-50%, -200%)"] },
    { duration: 900, easing: "ease-out" },
  ).onfinish = () => points.remove();
}
