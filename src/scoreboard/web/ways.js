/**
 * The ways by which a board's frames come: WebSocket, Server-Sent Events, plain requests with an ETag.
 *
 * In: a board's address, the newest frame that is there already, a token. Out: each message, then how it ended.
 * Never: a token in an address (it travels in the first message, or in a header), a word after `close()`.
 *
 * @typedef {{address: URL, newest: {epoch: string, seq: number} | null, token: string | null}} Line
 * @typedef {{code?: number | null, reason?: string, wish?: number | null, busy?: boolean}} End
 *     `code`: as WebSockets close with. `wish`: when the server wants us back, in ms. `busy`: it is there, and full.
 * @typedef {{heard: (message: any) => void, lost: (end: End) => void}} Ears
 * @typedef {(line: Line, ears: Ears) => () => void} Way
 *     Opens at once; what it gives ends it.
 */

const PROTOCOL = "scoreboard.v1";
/** The server says something at once; a way on which nothing comes within this is blocked somewhere. */
const FIRST_MS = 10_000;
/** It says something at least every 20 s; after this long without anything the line is dead. */
const SILENCE_MS = 30_000;
/** Between two plain requests, give or take a quarter, so that clients do not ask in step. */
const POLL_MS = 2_000;

/**
 * A browser has six connections to a host over HTTP/1.1, for all its tabs together, and a stream keeps one. Whatever
 * asks for more waits without a word, so the boards of a page beyond these are polled. Node.js knows no such bound.
 */
const STREAMS_MOST = "document" in globalThis ? 3 : Infinity;
/** Hosts of the streams that are open. @type {Map<AbortController, string>} */
const streams = new Map();

/** Problems that mean the same as a close code. */
const CODES = {
  token_expired: 4004, missing_token: 4401, invalid_token: 4401,
  insufficient_scope: 4403, origin_denied: 4403, unknown_board: 4404,
};

/** By name, the best first. @type {Record<string, Way>} */
export const WAYS = {
  ...("WebSocket" in globalThis && { websocket }),
  events,
  polling,
};

/** One connection by one way, until it is lost or closed. Dead when nothing is heard for too long. */
export class Link {
  /** Was anything heard at all? */ spoke = false;
  #heardAt = Date.now();
  #over = false;
  #hangUp = () => {};
  #heard;
  #lost;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #silence;

  /**
   * @param {Way} way
   * @param {Omit<Line, "token"> & {token: import("./scoreboard.js").Token}} line
   * @param {Ears} ears never called before the constructor is done
   */
  constructor(way, line, { heard, lost }) {
    this.#heard = heard;
    this.#lost = lost;
    this.#wait(SILENCE_MS);
    this.#open(way, line).catch((error) => this.#end({ reason: String(error) }));
  }

  /** Has it been dead for long, with timers that slept, too? */
  get silent() {
    return Date.now() - this.#heardAt > SILENCE_MS;
  }

  /** End it; nothing is heard any more. */
  close() {
    this.#over = true;
    clearTimeout(this.#silence);
    this.#hangUp();
  }

  async #open(way, { token, ...line }) {
    let known = token;
    try {
      if (typeof token === "function") known = await token();
    } catch (error) {
      this.#end({ reason: `no token: ${error}`, busy: true }); // not the fault of the way
    }
    if (this.#over) return;
    this.#wait(FIRST_MS);
    this.#hangUp = way({ ...line, token: known }, {
      heard: (message) => this.#hear(message),
      lost: (end) => this.#end(end),
    });
  }

  #hear(message) {
    if (this.#over) return;
    this.spoke = true;
    this.#heardAt = Date.now();
    this.#wait(SILENCE_MS);
    this.#heard(message);
  }

  #end(end) {
    if (this.#over) return;
    this.close();
    this.#lost(end);
  }

  #wait(milliseconds) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#end({ reason: "silence" }), milliseconds);
  }
}

/** @type {Way} */
function websocket({ address, newest, token }, { heard, lost }) {
  const url = resuming(address, "/live", newest);
  url.protocol = url.protocol.replace(/^http/, "ws");
  const socket = new WebSocket(url, PROTOCOL);
  socket.onopen = () => {
    if (token) socket.send(JSON.stringify({ type: "auth", token }));
  };
  socket.onmessage = ({ data }) => tell(data, heard);
  socket.onclose = ({ code, reason }) => lost({ code, reason });
  return () => socket.close(); // a dead socket's own `close` event may take minutes: not awaited
}

/** Server-Sent Events, read by `fetch`: `EventSource` can send no token. @type {Way} */
function events({ address, newest, token }, { heard, lost }) {
  const ending = new AbortController();
  const follow = async () => {
    const others = [...streams.values()].filter((host) => host === address.host);
    if (others.length >= STREAMS_MOST) return { reason: "enough streams to this host" };
    streams.set(ending, address.host);
    const answer = await ask(resuming(address, "/events", newest), { token, signal: ending.signal });
    if (!answer.ok) return refusal(answer);
    if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) return { reason: "no event stream" };
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let code = null;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { code, reason: "the stream ended" };
      const parts = (text + value).split("\n\n");
      text = parts.pop() ?? "";
      for (const event of parts) {
        const data = /^data: ?(.*)$/m.exec(event)?.[1]; // a frame is one line
        if (data) tell(data, (message) => {
          if (message.type === "bye") code = message.code; // what a WebSocket would close with
          heard(message);
        });
      }
    }
  };
  follow().then(lost, (error) => lost({ reason: String(error) }));
  return () => {
    streams.delete(ending);
    ending.abort();
  };
}

/** @type {Way} */
function polling({ address, newest, token }, { heard, lost }) {
  const ending = new AbortController();
  const user = subject(token);
  let etag = newest && `"${newest.epoch}-${newest.seq}"`;
  let standing = "";
  let timer;
  const poll = async () => {
    const answer = await ask(address, { token, etag, signal: ending.signal });
    if (answer.ok) {
      etag = answer.headers.get("etag");
      heard(await answer.json());
    } else if (answer.status !== 304) {
      return lost(await refusal(answer));
    }
    const stale = answer.headers.has("scoreboard-stale");
    if (stale || !answer.ok) heard({ type: "heartbeat", stale });
    if (user !== null) await look();
    timer = setTimeout(next, POLL_MS * (.75 + Math.random() / 2));
  };
  // The own line comes by itself on the other ways; here it has to be asked for.
  const look = async () => {
    const answer = await ask(beside(address, `/users/${encodeURIComponent(user)}`), { token, signal: ending.signal });
    const line = answer.ok ? await answer.json() : { rank: null, score: null, toNext: null, above: [], below: [] };
    if (!answer.ok && answer.status !== 404) return;
    if (standing === (standing = JSON.stringify(line))) return;
    const { board, rank, score, toNext, above, below } = line;
    heard({ type: "you", board, rank, score, toNext, above, below });
  };
  const next = () => poll().catch((error) => lost({ reason: String(error) }));
  next();
  return () => {
    clearTimeout(timer);
    ending.abort();
  };
}

/** @param {URL} url @param {{token: string | null, etag?: string | null, signal: AbortSignal}} how */
function ask(url, { token, etag, signal }) {
  /** @type {Record<string, string>} */ const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (etag) headers["if-none-match"] = etag;
  return fetch(url, { headers, signal, cache: "no-store", credentials: "omit" });
}

/** @param {Response} answer @returns {Promise<End>} */
async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  const seconds = Number(answer.headers.get("retry-after"));
  return {
    code: CODES[problem.code] ?? null, // something between us and the server may refuse, too: that is not its word
    reason: problem.title ?? `HTTP ${answer.status}`,
    wish: seconds > 0 ? seconds * 1000 : null,
    busy: answer.status === 503,
  };
}

/** @param {URL} address @param {string} path @param {Line["newest"]} newest */
function resuming(address, path, newest) {
  const url = beside(address, path);
  if (newest) url.search = String(new URLSearchParams({ epoch: newest.epoch, seq: String(newest.seq) }));
  return url;
}

function beside(address, path) {
  const url = new URL(address);
  url.pathname += path;
  return url;
}

function tell(text, heard) {
  let message;
  try {
    message = JSON.parse(text);
  } catch {
    return; // not ours; a server that only babbles falls silent for us
  }
  heard(message);
}

/** The user that a token is about; `null` for a service's key, which has no line of its own. */
export function subject(token) {
  try {
    const claims = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(claims), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub ?? null;
  } catch {
    return null;
  }
}
