// Calls show(rows) whenever a board changes. Runs in any page, and in Node.js 22 or later.
export function watch(url, show) {
  const socket = new WebSocket(url, "scoreboard.v1");
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type === "board") show(frame.top);
  };
  socket.onclose = ({ code }) => {
    if (code < 4400 || code > 4499) setTimeout(watch, 1000 + 4000 * Math.random(), url, show);
  };
}
