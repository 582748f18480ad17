// How old is what a part of the page shows: what could not be asked for again is old, and what never came is unknown.
import { duration, element, sentence, text } from "./format.js";

const all = new Set();
setInterval(() => all.forEach((age) => age.say()), 1000);

export class Age {
  // `what` is a sentence's beginning: "What failed".
  constructor(what, place = element("p")) {
    Object.assign(this, { what, place, knownMs: null, why: "" });
    place.className = "old";
    place.hidden = true;
    all.add(this);
  }

  // It was asked for and came: it is as it stands.
  known() {
    this.knownMs = Date.now();
    this.why = "";
    this.say();
  }

  unknown(error) {
    this.why = sentence(error);
    this.say();
  }

  // What is shown from now on is something else.
  forget() {
    this.knownMs = null;
    this.why = "";
    this.say();
  }

  say() {
    this.place.hidden = !this.why;
    if (this.why) text(this.place, `${this.what} ${this.words()}: ${this.why}`);
  }

  words() {
    if (this.knownMs === null) return "is not known";
    const ago = Math.round((Date.now() - this.knownMs) / 1000);
    return `is as of ${new Date(this.knownMs).toLocaleTimeString()}, ${duration(ago)} ago`;
  }
}
