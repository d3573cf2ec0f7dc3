// Calls show(rows) with each newer board, for ever. Runs in any page, and in Node.js 22 or later.
export function watch(url, show, newest = {}) {
  let pause = 1000 + 4000 * Math.random();
  const socket = new WebSocket(url, "scoreboard.v1");
  socket.onmessage = ({ data }) => {
    const { type, epoch, seq, top, retryAfter } = JSON.parse(data);
    if (type === "bye") pause = retryAfter;
    if (type !== "board" || (epoch === newest.epoch && seq <= newest.seq)) return;
    newest = { epoch, seq };
    show(top);
  };
  socket.onclose = ({ code }) => {
    if (code < 4400 || code > 4499) setTimeout(watch, pause, url, show, newest);
  };
}
