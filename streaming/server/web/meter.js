// Reads a call's statistics once a second and writes them into the meter.

const ms = (value) => (Number.isFinite(value) ? `${Math.round(value)} ms` : "–");

export class Meter {
  #call;
  #ended;
  #fields;
  #timer = null;
  #last = null;

  // `ended` is called with the reason when the server has ended the call.
  constructor(call, root, ended) {
    this.#call = call;
    this.#ended = ended;
    this.#fields = Object.fromEntries([...root.querySelectorAll("[data-value]")].map((e) => [e.dataset.value, e]));
    this.#timer = setInterval(() => this.#read(), 1000);
  }

  stop() {
    clearInterval(this.#timer);
    for (const field of Object.values(this.#fields)) field.textContent = "–";
  }

  async #read() {
    let server, report;
    try {
      [server, report] = await Promise.all([this.#call.statistics(), this.#call.pc.getStats()]);
    } catch (error) {
      if (error.status === 404) this.#ended(error.message);
      return; // otherwise the call is ending or the connection is lost: its state change tells
    }
    if (!server) return;
    const inbound = {};
    let roundTrip = NaN;
    for (const stat of report.values()) {
      if (stat.type === "inbound-rtp") inbound[stat.kind] = stat;
      if (stat.type === "candidate-pair" && stat.nominated) roundTrip = stat.currentRoundTripTime * 1000;
    }
    const { video, audio } = inbound;
    if (!video || !audio) return;
    const now = { at: performance.now(), frames: video.framesDecoded, buffered: video.jitterBufferDelay, emitted: video.jitterBufferEmittedCount };
    const before = this.#last ?? now;
    this.#last = now;
    const seconds = (now.at - before.at) / 1000;
    const rate = seconds ? (now.frames - before.frames) / seconds : NaN;
    const buffer = (1000 * (now.buffered - before.buffered)) / (now.emitted - before.emitted);
    const offset = playedAt(video) - playedAt(audio);
    this.#write("rate", Number.isFinite(rate) ? `${rate.toFixed(1)} fps` : "–");
    this.#write("offset", Number.isFinite(offset) ? `${offset > 0 ? "+" : ""}${ms(offset)}` : "–");
    this.#write("network", ms(roundTrip));
    this.#write("engine", ms(server.engine_delay_ms));
    this.#write("playout-delay", ms(server.playout_delay_ms));
    this.#write("buffer", ms(buffer));
    this.#write("delay", ms(roundTrip + server.engine_delay_ms + server.playout_delay_ms + buffer));
    this.#write("compute", server.compute_ms_p95 === null ? "–" : `${server.compute_ms_p95} ms`);
    this.#write("lost", `${server.late_frames + server.dropped_frames + (video.framesDropped ?? 0)} of ${server.frames}`);
  }

  #write(name, text) {
    this.#fields[name].textContent = text;
  }
}

// The sender's time of what is playing. Video minus audio: above 0, the sound is late.
const playedAt = (stat) => stat.estimatedPlayoutTimestamp ?? NaN;
