/** How numbers, places and times are written, in the reader's own notation or that of a given language. */

const SUFFIX = { one: "st", two: "nd", few: "rd", other: "th" };

export class Words {
  #numbers;
  #clock;
  #calendar;
  #ordinals = new Intl.PluralRules("en", { type: "ordinal" });

  /** @param {string} [locale] BCP 47 */
  constructor(locale) {
    this.speak(locale);
  }

  /** From now on as in this language; if it is none, as the reader's. @param {string} [locale] */
  speak(locale) {
    const known = supported(locale);
    this.#numbers = new Intl.NumberFormat(known);
    this.#clock = new Intl.DateTimeFormat(known, { timeStyle: "medium" });
    this.#calendar = new Intl.DateTimeFormat(known, { dateStyle: "medium", timeStyle: "medium" });
  }

  /** @param {number} value */
  number = (value) => this.#numbers.format(value);

  /** 1st, 2nd, 3rd, … @param {number} place */
  ordinal = (place) => this.number(place) + SUFFIX[this.#ordinals.select(place)];

  /** "1 point", "2 points" @param {number} count @param {string} thing */
  counted = (count, thing) => `${this.number(count)} ${thing}${Math.abs(count) === 1 ? "" : "s"}`;

  /** The time of day; with the date unless it is today. @param {Date} at */
  time = (at) => (at.toDateString() === new Date().toDateString() ? this.#clock : this.#calendar).format(at);
}

/** A name inside a sentence, so that its direction of writing cannot turn the sentence around. @param {string} name */
export const isolated = (name) => `\u2068${name}\u2069`;

function supported(locale) {
  try {
    return Intl.NumberFormat.supportedLocalesOf(locale || []);
  } catch {
    return [];
  }
}
