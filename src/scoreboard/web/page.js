/**
 * The page at `/`: finds out which board to show, watches it, and keeps the page in step.
 *
 * In: `GET /boards`, the frames and states of `scoreboard.js`. Out: what a visitor sees and hears.
 */

import { Announcer } from "./announcer.js";
import { Rows } from "./rows.js";
import { backoff, watch } from "./scoreboard.js";
import { TakePart } from "./takepart.js";
import { counted, time } from "./words.js";

/** After so many failed attempts in a row "reconnecting" would be too hopeful a word. */
const OFFLINE_TRIES = 6;

const $ = (id) => document.getElementById(id);
const rows = new Rows($("rows"), $("row"));
const announcer = new Announcer($("announcer"));

/** @type {import("./scoreboard.js").Frame | null} */ let frame = null;
/** @type {import("./scoreboard.js").State} */
let link = { state: "connecting", tries: 0, retryAt: null, code: null, reason: "" };
let board = { board: "", title: "", order: "desc" };
/** @type {TakePart | null} */ let takePart = null;
/** @type {string | null} */ let visitor = null;
let countdown = 0;

start();

async function start() {
  const { boards, demo } = await directory();
  const wanted = new URLSearchParams(location.search).get("board") ?? boards[0]?.board;
  showBoards(boards, wanted);
  const found = boards.find(({ board }) => board === wanted);
  if (!found) {
    showStopped("There is no such board", boards.length > 0 ? "Pick one of the boards above." : "");
    return;
  }
  board = found;
  showTitle(board.title || board.board);
  const action = board.actions?.[0] ?? "point";
  $("command").textContent = `scoreboard score ann ${action}`;
  $("action").textContent = action;
  $("example").textContent = example(action);
  if (demo) {
    takePart = new TakePart(board.board, demo, (userId) => {
      visitor = userId;
      if (frame) show(frame);
    });
  }
  watch(board.board, { onFrame: show, onState: showLink });
}

/** The boards of this server. Asked for until there is an answer. */
async function directory() {
  for (let tries = 1; ; tries += 1) {
    try {
      const answer = await fetch("boards", { headers: { Accept: "application/json" } });
      if (answer.ok) return await answer.json();
    } catch {
      // not reachable: the same as an answer that says so
    }
    const delay = backoff(tries);
    showLink({ state: "waiting", tries, retryAt: Date.now() + delay, code: null, reason: "" });
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

function showTitle(title) {
  document.title = title;
  $("title").textContent = title;
  $("title").removeAttribute("aria-label");
}

function showBoards(boards, current) {
  if (boards.length < 2 && boards[0]?.board === current) return;
  for (const { board, title } of boards) {
    const item = document.createElement("li");
    const anchor = document.createElement("a");
    anchor.href = `?board=${encodeURIComponent(board)}`;
    anchor.textContent = title || board;
    anchor.dir = "auto";
    if (board === current) anchor.setAttribute("aria-current", "page");
    item.append(anchor);
    $("boards-list").append(item);
  }
  $("boards").hidden = boards.length === 0;
}

/** @param {import("./scoreboard.js").Frame} newest */
function show(newest) {
  frame = newest;
  const empty = frame.top.length === 0;
  $("skeleton").hidden = true;
  $("table").hidden = empty;
  $("empty").hidden = !empty;
  $("board").ariaBusy = "false";
  rows.show(frame, { order: board.order, me: visitor });
  $("players").textContent = counted(frame.total, "player");
  showUpdated();
  announcer.board(frame);
  takePart?.board(frame);
}

/** @param {import("./scoreboard.js").State} state */
function showLink(state) {
  const before = link.state;
  link = state;
  clearInterval(countdown);
  if (link.state === "waiting") countdown = setInterval(showLinkText, 250);
  showLinkText();
  showUpdated();
  if (link.state === "stopped") {
    showStopped("This board is not shown", reason(link));
    announcer.say(reason(link));
  } else if (link.state === "waiting" && before === "live") {
    announcer.say("The connection was lost. Reconnecting.");
  } else if (link.state === "live" && frame) {
    announcer.say("Live again.");
  }
}

function showLinkText() {
  const seconds = link.retryAt === null ? 0 : Math.ceil((link.retryAt - Date.now()) / 1000);
  const soon = seconds > 0 ? `in ${seconds} s` : "now";
  const offline = link.state !== "live" && (!navigator.onLine || link.tries >= OFFLINE_TRIES);
  const [state, text] =
    link.state === "live" ? ["live", "Live"]
    : link.state === "stopped" ? ["stopped", "Stopped"]
    : offline && link.state === "waiting" ? ["offline", `Offline, trying again ${soon}`]
    : offline ? ["offline", "Offline, trying again…"]
    : link.state === "waiting" ? ["waiting", `Reconnecting ${soon}`]
    : link.tries > 0 ? ["waiting", "Reconnecting…"]
    : ["connecting", "Connecting…"];
  $("link").dataset.state = state;
  document.body.classList.toggle("stale", frame !== null && state !== "live");
  if ($("link-text").textContent !== text) $("link-text").textContent = text;
}

function showUpdated() {
  if (!frame) return;
  const at = new Date(frame.at);
  const moment = document.createElement("time");
  moment.dateTime = frame.at;
  moment.textContent = time(at);
  $("updated").replaceChildren(link.state === "live" ? "Updated " : "Last update ", moment);
}

function showStopped(title, text) {
  $("link").dataset.state = "stopped";
  $("link-text").textContent = "Stopped";
  $("skeleton").hidden = true;
  $("board").ariaBusy = "false";
  $("stopped").hidden = false;
  $("stopped-title").textContent = title;
  $("stopped-text").textContent = text;
  if (!$("title").textContent) showTitle("Scoreboard");
}

function reason({ code, reason }) {
  const known = {
    4400: "The server did not understand this page. Loading it again may help.",
    4401: "The token is not valid.",
    4403: "Watching this board is not allowed from here.",
    4404: "There is no such board any more.",
  };
  return known[code] ?? (reason || `The server refused (${code}).`);
}

/** @param {string} action a type that counts on this board */
function example(action) {
  const address = new URL("update-score", location.href);
  address.search = "";
  return [
    `curl ${address} \\`,
    '  -H "Authorization: Bearer $KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d '{"userId":"ann","actionId":"${action}:1"}'`,
  ].join("\n");
}
