/** How the page writes numbers, places and times, in the reader's own notation. */

const numbers = new Intl.NumberFormat();
const ordinals = new Intl.PluralRules("en", { type: "ordinal" });
const SUFFIX = { one: "st", two: "nd", few: "rd", other: "th" };
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** @param {number} value */
export const number = (value) => numbers.format(value);

/** 1st, 2nd, 3rd, … @param {number} place */
export const ordinal = (place) => number(place) + SUFFIX[ordinals.select(place)];

/** "1 point", "2 points" @param {number} count @param {string} thing */
export const counted = (count, thing) => `${number(count)} ${thing}${Math.abs(count) === 1 ? "" : "s"}`;

/** The time of day; with the date unless it is today. @param {Date} at */
export function time(at) {
  return (at.toDateString() === new Date().toDateString() ? clock : calendar).format(at);
}

/** A name inside a sentence, so that its direction of writing cannot turn the sentence around. @param {string} name */
export const isolated = (name) => `\u2068${name}\u2069`;
