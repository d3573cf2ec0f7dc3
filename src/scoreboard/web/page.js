/**
 * The page at `/`: tells the element which board to show, and keeps what is around it in step.
 *
 * In: the address (`?board=`), the element's events. Out: the title, the list of boards, how to send a first score,
 * the demo's panel.
 */

import "./live-scoreboard.js";
import { make } from "./markup.js";
import { TakePart } from "./takepart.js";

const $ = (id) => document.getElementById(id);
const board = document.querySelector("live-scoreboard");
const wanted = new URLSearchParams(location.search).get("board");
/** @type {TakePart | null} */ let takePart = null;

board.addEventListener("boards", ({ detail: { boards, demo } }) => {
  const shown = boards.find((one) => one.board === board.board);
  const title = shown?.title ?? "Scoreboard";
  document.title = $("title").textContent = title;
  $("title").removeAttribute("aria-label");
  showBoards(boards);
  const action = shown?.actions?.[0] ?? "point";
  $("command").textContent = `scoreboard score ann ${action}`;
  $("action").textContent = action;
  $("example").textContent = example(action);
  if (demo && shown) takePart ??= new TakePart(board, demo);
});
if (wanted !== null) board.board = wanted;

function showBoards(boards) {
  const items = boards.map(({ board: name, title }) => {
    const current = name === board.board && { "aria-current": "page" };
    return make("li", {}, make("a", { href: `?board=${encodeURIComponent(name)}`, dir: "auto", ...current }, title));
  });
  $("boards-list").replaceChildren(...items);
  $("boards").hidden = boards.length === 1 && boards[0].board === board.board;
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
