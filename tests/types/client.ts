/** The client and the element as a program in TypeScript uses them. Checked, never run. */

import { backoff, watch, type Frame, type State, type Watch, type You } from "../../src/scoreboard/web/scoreboard.js";
import "../../src/scoreboard/web/live-scoreboard.js";

const watching: Watch = watch("main", {
  server: "https://scores.example",
  token: async () => (await fetch("/my-token")).text(),
  transports: ["websocket", "polling"],
  onFrame: ({ top, total }: Frame) => console.log(total, top[0]?.name.toUpperCase(), top[0]?.score.toFixed()),
  onYou: ({ rank, toNext, above }: You) => console.log(rank ?? "no rank", toNext, above.length),
  onState: ({ state, transport, retryAt }: State) => {
    if (state === "waiting" && retryAt !== null) console.log(transport, new Date(retryAt + backoff(3)));
  },
});
watching.token = "another";
watching.token = null;
watching.close();
watch("main");

const board = document.createElement("live-scoreboard");
board.board = "main";
board.token = () => "ey…";
board.addEventListener("frame", ({ detail }) => console.log(detail.top.map((line) => line.rank)));
board.addEventListener("you", ({ detail }) => console.log(detail.score));
board.addEventListener("state", ({ detail }) => console.log(detail.state));
board.addEventListener("boards", ({ detail }) => console.log(detail.boards[0]?.title, detail.demo?.action));
board.addEventListener("click", ({ clientX }) => console.log(clientX));
document.body.append(board);

// What is not so is an error.
// @ts-expect-error  a state that there is not
const wrong: State["state"] = "online";
// @ts-expect-error  frames are shared, and not for changing
watch("main", { onFrame: (frame) => (frame.seq = 0) });
// @ts-expect-error  a way that there is not
watch("main", { transports: ["pigeon"] });
// @ts-expect-error  the numbers may be missing
watch("main", { onYou: ({ rank }) => rank + 1 });
