/**
 * How a board looks: a broadcast graphic that happens to be a table. One scale, two palettes, no images.
 *
 * A constructed style sheet: it needs no permission for inline styles, and no request. All lengths are in `em`, so
 * that the element's font size scales everything. The custom properties on `:host` are for pages to set on the
 * element (a page's own rule for `live-scoreboard` stands above `:host`); slotted content inherits them.
 */

const css = String.raw;

/** Scores of so many `em` in a line of their own, below the name. @param {string} rows @param {number} width */
const stacked = (rows, width) => css`
  ${rows} .row { height: max(var(--row), 2.7em); align-content: center; row-gap: .05em; }
  ${rows} .name { font-size: 1em; line-height: 1.15; }
  ${rows} .rank { grid-row: 1 / 3; }
  ${rows} :is(.player, .score) { grid-column: 2 / 4; }
  ${rows} .score { font-size: min(1.1em, (100cqi - 4.8em) / ${width}); }
`;

export const style = new CSSStyleSheet();

style.replaceSync(css`
:host {
  display: block;
  container: scoreboard / inline-size;

  --slab: light-dark(#ffffff, #141b25);
  --slab-edge: light-dark(#d3dae3, #222c3a);
  --ink: light-dark(#0f1620, #f0f4f9);
  --dim: light-dark(#4f5c6d, #9fadbf);
  --accent: light-dark(#0b63c4, #58b4ff);
  --bar: light-dark(rgb(11 99 196 / .1), rgb(88 180 255 / .13));
  --up: light-dark(#06734a, #4fe0a0);
  --down: light-dark(#b02a17, #ff9284);
  --warn: light-dark(#8a5600, #ffc53d);
  --gold-1: light-dark(#ffd35e, #ffd766);
  --gold-2: light-dark(#ffbb33, #ffb224);
  --gold-ink: #211600;
  --silver: light-dark(#8e9cae, #c3cedb);
  --bronze: light-dark(#b4703a, #d2925a);
  --shadow: 0 1px 2px light-dark(rgb(15 22 32 / .07), transparent);
  --figures: "DIN Alternate", Bahnschrift, "Roboto Condensed", "Avenir Next Condensed", "Liberation Sans Narrow",
    "Arial Narrow", system-ui, sans-serif;
  --text: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  --row: 3.25em;
  --gap: .4em;
  --round: .5em;
}
:host([theme="auto"]) { color-scheme: light dark; }
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([hidden]), [hidden] { display: none !important; }

*, ::before, ::after { box-sizing: border-box; }

.whole {
  color: var(--ink);
  font-family: var(--text);
  font-style: normal;
  font-weight: 400;
  line-height: 1.4;
  /* What a page does to its own text is not meant for ours. */
  letter-spacing: normal;
  text-align: start;
  text-indent: 0;
  text-shadow: none;
  text-transform: none;
  white-space: normal;
  word-spacing: normal;
}

.unseen {
  position: absolute;
  width: 1px;
  height: 1px;
  margin: -1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}

/* Masthead: what, how many, and is it live */

/* Room for the longest state of the connection is always there: nothing moves when something is wrong. */
.masthead { display: grid; grid-template-columns: minmax(0, 1fr) 15.5em; align-items: center; gap: .2em 1em; padding-bottom: .9em; }
.masthead slot[name="title"] { grid-column: 1; }
h2, ::slotted([slot="title"]) {
  grid-column: 1;
  min-height: 1.1em;
  margin: 0;
  font: 700 1.9em/1.1 var(--figures);
  letter-spacing: .02em;
  text-transform: uppercase;
  text-align: left;
  text-wrap: balance;
  overflow-wrap: anywhere;
}
.players { grid-column: 1; margin: 0; min-height: 1.4em; overflow: hidden; color: var(--dim); font-variant-numeric: tabular-nums; text-overflow: ellipsis; white-space: nowrap; }
.link {
  grid-column: 2;
  grid-row: 1;
  justify-self: end;
  display: flex;
  align-items: center;
  gap: .55em;
  margin: 0;
  padding: .35em .85em;
  border: 1px solid var(--slab-edge);
  border-radius: 2em;
  background: var(--slab);
  font-size: .875em;
  font-weight: 600;
  font-variant-numeric: tabular-nums;
  white-space: nowrap;
}
.masthead:has(h2[hidden]) .link { grid-row: auto; }
.dot { flex: none; width: .6em; height: .6em; border-radius: 50%; background: var(--dim); }
[data-state="live"] .dot { background: var(--up); }
[data-state="waiting"] .dot { background: none; box-shadow: inset 0 0 0 .15em var(--warn); }
:is([data-state="offline"], [data-state="stopped"]) .dot { background: var(--down); border-radius: .1em; }
[data-state="waiting"] { color: var(--warn); border-color: currentColor; }
:is([data-state="offline"], [data-state="stopped"]) { color: var(--down); border-color: currentColor; }
::slotted([slot="nav"]) { grid-column: 1 / -1; }

/* The board, and what a page puts beside it */

.stage { display: grid; grid-template-columns: minmax(0, 1fr); align-content: start; }
.board { min-width: 0; }
::slotted([slot="aside"]) { margin-top: 1.25em; }
.rows { display: block; width: 100%; }
.rows thead, .rows tbody { display: grid; gap: var(--gap); }
.rows tbody { position: relative; isolation: isolate; }
.rows tr {
  display: grid;
  grid-template-columns: 6.6em minmax(0, 1fr) auto;
  column-gap: 1em;
  align-items: center;
  padding-inline: 1.1em;
}
.rows thead th {
  padding: 0 0 .45em;
  color: var(--dim);
  font-size: .75em;
  font-weight: 600;
  letter-spacing: .08em;
  text-align: left;
  text-transform: uppercase;
}
.rows thead th:last-child { text-align: right; }
.rows :is(td, tbody th) { padding: 0; }

.row {
  position: relative;
  isolation: isolate;
  width: 100%;
  height: var(--row);
  border-radius: var(--round);
  background: var(--slab);
  box-shadow: var(--shadow);
  --fill: var(--bar);
  --edge: var(--accent);
}
.row.rising { z-index: 1; }
.row.leaving { position: absolute; left: 0; z-index: -1; }
.row.mine { outline: 2px solid var(--accent); outline-offset: -2px; }

/* How close to the leader: a line below that no text ever crosses, and above it a glow without an edge in the names. */
.track { position: absolute; inset: 0; z-index: -1; overflow: hidden; border-radius: var(--round); }
.bar { position: absolute; inset: 0; background: linear-gradient(90deg, transparent, var(--fill) calc(100% - 6em), transparent); border-bottom: .1875em solid var(--edge); transform: translateX(-101%); }

.rank { display: flex; align-items: baseline; line-height: 1; }
.number, .score { font: 700 1.9em/1 var(--figures); font-variant-numeric: tabular-nums lining-nums; }
.number { min-width: 1.15em; text-align: right; }
.tie { width: 0; margin-left: .2em; color: var(--dim); font: 700 1.15em/1 var(--figures); }
.mark { align-self: center; margin-left: 1.7em; font: 700 .875em/1 var(--text); font-variant-numeric: tabular-nums; white-space: nowrap; }
.mark[data-kind="up"] { color: var(--up); }
.mark[data-kind="down"] { color: var(--down); }
.mark[data-kind="new"] { margin-left: 2em; padding: .2em .5em; border: 1px solid currentColor; border-radius: 2em; color: var(--accent); font-size: .75em; }

.player { display: flex; align-items: center; gap: .6em; min-width: 0; font-weight: 600; text-align: left; }
.name { display: block; min-width: 0; overflow: hidden; padding-block: .1em; font-size: 1.3em; text-align: left; text-overflow: ellipsis; white-space: nowrap; }
.you { flex: none; padding: .1em .6em; border-radius: 2em; background: var(--accent); color: var(--slab); font-size: .75em; font-weight: 700; }
.crown { display: none; flex: none; width: 1.75em; fill: currentColor; }
.score { text-align: right; white-space: nowrap; }

.row[data-rank="2"] { --edge: var(--silver); }
.row[data-rank="3"] { --edge: var(--bronze); }
.row:is([data-rank="2"], [data-rank="3"]) .track { box-shadow: inset .3em 0 var(--edge); }
.row[data-rank="1"] {
  --fill: transparent;
  --edge: transparent;
  --dim: var(--gold-ink);
  background: linear-gradient(100deg, var(--gold-1), var(--gold-2));
  color: var(--gold-ink);
}
.row[data-rank="1"] .crown { display: block; }
.row[data-rank="1"] .mark { color: inherit; }
.row[data-rank="1"] .you { background: var(--gold-ink); color: var(--gold-1); }
.row[data-rank="1"] .player { font-weight: 700; }
.row[data-rank="1"].mine { outline-color: var(--ink); }

/* No longer live: the colour goes, the contrast stays. */
.stale .rows tbody { filter: saturate(.2); }

.own { margin: .75em 0 0; padding: .6em 1.1em; border: 1px solid var(--accent); border-radius: var(--round); background: var(--slab); font-weight: 600; font-variant-numeric: tabular-nums; }

.skeleton {
  height: calc((var(--row) + var(--gap)) * 10);
  margin-top: 1.5em;
  border-radius: var(--round);
  background: repeating-linear-gradient(var(--slab) 0 var(--row), transparent var(--row) calc(var(--row) + var(--gap)));
  opacity: .6;
}

/* Words instead of rows */
.notice { max-width: 46em; margin: 1em 0; padding: 1.5em; border-radius: var(--round); background: var(--slab); box-shadow: var(--shadow); }
h3 { margin: 0 0 .5em; font: 700 1.5em/1.2 var(--figures); }
.notice p { margin: .75em 0 0; }

.footer { display: flex; justify-content: flex-end; padding-top: 1em; color: var(--dim); font-size: .875em; font-variant-numeric: tabular-nums; }
.footer p { margin: 0; min-height: 1.4em; }

/* Wide: what is put beside the board stands there. */
@container scoreboard (min-width: 62em) {
  .stage { grid-template-columns: minmax(0, 1fr) auto; }
  ::slotted([slot="aside"]) { width: 17em; margin: 1.5em 0 0 1.25em; }
}

/* Narrow: the connection goes below the title, a mark below the rank, a very long score below the name. */
@container scoreboard (max-width: 39em) {
  .masthead { grid-template-columns: minmax(0, 1fr) auto; }
  .masthead slot[name="title"], h2, ::slotted([slot="title"]) { grid-column: 1 / -1; }
  .link { grid-row: auto; font-size: .8125em; }
  .rows tr { grid-template-columns: 2.3em minmax(0, 1fr) auto; column-gap: .75em; padding-inline: .5em .8em; }
  .rows thead tr { grid-template-columns: 3em minmax(0, 1fr) auto; column-gap: .3em; }
  .rows thead th:first-child { letter-spacing: 0; }
  .rank { justify-content: center; }
  .number, .score { font-size: 1.5em; }
  .number { min-width: 0; }
  .mark { position: absolute; left: .73em; bottom: .45em; width: 3.35em; margin: 0; font-size: .6875em; text-align: center; }
  .mark[data-kind="new"] { margin: 0; padding: 0; border: 0; font-size: .6875em; }
  .rank:has(.mark:not([hidden])) { padding-bottom: .7em; }
  .player { gap: .4em; }
  .name { font-size: 1.0625em; }
  .crown { width: 1.4em; }
  ${stacked(".wide", 14)}
}

@container scoreboard (max-width: 24em) {
  .more { display: none; }
}

/* Very narrow: every long score below the name. */
@container scoreboard (max-width: 22em) {
  ${stacked(".long:not(.wide)", 8)}
}

@media (prefers-reduced-motion: no-preference) {
  [data-state="live"] .dot { animation: breathe 2.4s ease-in-out infinite; }
  [data-state="connecting"] .dot { animation: breathe 1s ease-in-out infinite; }
  .skeleton { animation: breathe 1.8s ease-in-out infinite; }
  @keyframes breathe { 50% { opacity: .35; } }
}

@media (forced-colors: active) {
  .row, .notice, .own, .link { border: 1px solid CanvasText; }
  .row[data-rank="1"] { border: 3px solid Highlight; }
  .row.mine { outline-color: Highlight; }
  .bar { border-bottom-color: GrayText; }
  .dot { forced-color-adjust: none; background: CanvasText; }
}

@media print {
  .link, .mark, .track, .skeleton { display: none !important; }
  .row, .row[data-rank="1"] { height: 2.2em; border-bottom: 1px solid #999; border-radius: 0; background: none; color: #000; box-shadow: none; break-inside: avoid; }
}
`);
