// A call: connected, watched, and connected again when the network or the server was away.

import { Connection } from "./connection.js";
import { inWords, NO_MEDIA, PlainError } from "./words.js";

const LOOK_MS = 250;
const LOST_AFTER_MS = 1300; // nothing arrives; with the looks, said within 1.6 s
const FIRST_MEDIA_MS = 10_000;
const AGAIN_MS = 1000; // between two attempts
const ANSWER_MS = 8000; // of the server to one attempt
const MEDIA_MS = 3000; // from that answer to the first packet
const GIVE_UP_MS = 30_000;
const FINAL = [400, 401, 403, 404, 405, 409, 413, 415]; // trying again would not help
const GONE = 410; // somebody ended the conversation, or it failed: a new attempt should not undo that

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Events: "lost"; "live" (detail: whether the conversation `resumed`); "ended" (detail: `reason`).
export class Call extends EventTarget {
  #request;
  #target;
  #config;
  #token = null;
  #ended = false;
  lost = false;

  constructor(request, target, track) {
    super();
    this.#request = request;
    this.#target = target;
    this.track = track;
  }

  get stream() {
    return this.connection.stream;
  }

  get pc() {
    return this.connection.pc;
  }

  // Resolves when sound or picture arrives. Throws with the reason when they do not, or nothing
  // when `end` was called meanwhile.
  async start() {
    this.#config = await (await this.#request("api/config")).json();
    if (this.#ended) return;
    this.connection = new Connection(this.#request, this.#config);
    await this.connection.open(this.#target, this.track, null);
    if (this.#ended) return void this.connection.end();
    this.#token = this.connection.token;
    if (!(await this.#arrives(this.connection, FIRST_MEDIA_MS)) && !this.#ended) throw new PlainError(NO_MEDIA);
    this.#watch();
  }

  // Another microphone, or the same with other processing.
  async replaceTrack(track) {
    this.track = track;
    await this.connection?.sound?.sender.replaceTrack(track);
  }

  // The server's, of this conversation; null before there is one.
  async statistics(signal) {
    try {
      return await this.connection.statistics(signal);
    } catch (error) {
      if (error.status === GONE) this.#finish(inWords(error));
      throw error;
    }
  }

  interrupt() {
    return this.connection.interrupt();
  }

  async end() {
    this.#ended = true;
    await this.connection?.end();
  }

  async #arrives(connection, within_ms) {
    for (let waited = 0; waited < within_ms && !this.#ended && !connection.broken; waited += LOOK_MS / 2) {
      if (await connection.flows()) return true;
      await pause(LOOK_MS / 2);
    }
    return false;
  }

  async #watch() {
    let heard = performance.now();
    while (!this.#ended) {
      if (await this.connection.flows()) heard = performance.now();
      if (this.connection.broken || performance.now() - heard > LOST_AFTER_MS) {
        await this.#reconnect();
        heard = performance.now();
      }
      await pause(LOOK_MS);
    }
  }

  async #reconnect() {
    if (this.#ended) return;
    this.lost = true;
    this.dispatchEvent(new Event("lost"));
    const until = performance.now() + GIVE_UP_MS;
    let reason = "";
    // Who closed it may say why.
    if (this.connection.broken) await this.statistics(AbortSignal.timeout(AGAIN_MS)).catch(() => {});
    while (!this.#ended && performance.now() < until) {
      const began = performance.now();
      const back = new AbortController(); // the old connection works again
      const next = new Connection(this.#request, this.#config);
      const attempt = this.#attempt(next, back.signal).catch((error) => error);
      const outcome = await Promise.race([attempt, this.#recovers(attempt)]);
      if (this.#ended) return void next.end();
      if (outcome === "old") {
        back.abort();
        next.close();
        return this.#live(true);
      }
      if (outcome === "new") {
        this.connection.close();
        this.connection = next;
        return this.#live(next.resumed);
      }
      next.close();
      if (FINAL.includes(outcome.status)) return this.#finish(inWords(outcome));
      reason = inWords(outcome);
      await pause(Math.max(0, began + AGAIN_MS - performance.now()));
    }
    this.#finish(`The connection was lost and did not come back within 30 seconds. ${reason}`);
  }

  async #attempt(next, signal) {
    const limit = AbortSignal.timeout(ANSWER_MS);
    await next.open(this.#target, this.track, this.#token, AbortSignal.any([signal, limit]));
    this.#token = next.token ?? this.#token;
    if (!(await this.#arrives(next, MEDIA_MS))) throw new PlainError(NO_MEDIA);
    return "new";
  }

  // Resolves to "old" when the old connection carries something again, while `attempt` goes on.
  async #recovers(attempt) {
    let going = true;
    attempt.finally(() => { going = false; });
    while (going && !this.#ended) {
      if (!this.connection.broken && (await this.connection.flows())) return "old";
      await pause(LOOK_MS);
    }
    return this.#ended ? "ended" : attempt;
  }

  #live(resumed) {
    this.lost = false;
    this.dispatchEvent(new CustomEvent("live", { detail: { resumed } }));
  }

  #finish(reason) {
    if (this.#ended) return;
    this.end();
    this.dispatchEvent(new CustomEvent("ended", { detail: { reason } }));
  }
}
