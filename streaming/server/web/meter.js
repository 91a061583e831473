// Reads a call's statistics once a second: one word for its quality, and the figures behind it.

const READ_MS = 1000;
const PATIENCE = 3; // readings in a row that are amber, before the word is
const SLOW_MS = 700;
const UNSYNCED_MS = 90;
const SMOOTH_SHARE = 0.85; // of the target's frame rate
const PATCHY_SHARE = 0.03; // of the packets

const ms = (value) => (Number.isFinite(value) ? `${Math.round(value)} ms` : "–");

export class Meter {
  #call;
  #fps;
  #judged;
  #fields;
  #last = null;
  #amber = 0;
  #timer = setInterval(() => this.#read(), READ_MS);

  // `judged` is called with the word, its reason, and whether all is well.
  constructor(call, root, fps, judged) {
    this.#call = call;
    this.#fps = fps;
    this.#judged = judged;
    this.#fields = Object.fromEntries([...root.querySelectorAll("[data-value]")].map((e) => [e.dataset.value, e]));
  }

  stop() {
    clearInterval(this.#timer);
    for (const name of Object.keys(this.#fields)) this.#write(name, "–");
  }

  // After a connection was lost: counts begin anew.
  reset() {
    this.#last = null;
    this.#amber = 0;
  }

  async #read() {
    if (this.#call.lost) return;
    let server, report;
    try {
      [server, report] = await Promise.all([this.#call.statistics(), this.#call.pc.getStats()]);
    } catch {
      return; // the call itself notices that it is lost
    }
    const now = reading(report);
    if (!server || !now) return;
    const before = this.#last ?? now;
    this.#last = now;
    const figures = between(before, now, server);
    this.#show(figures);
    const [word, reason] = judge(figures, this.#fps);
    this.#amber = word === "Good" ? 0 : this.#amber + 1;
    if (word === "Good" || this.#amber >= PATIENCE) this.#judged(word, reason, word === "Good");
  }

  #show(figures) {
    this.#write("rate", Number.isFinite(figures.fps) ? `${figures.fps.toFixed(1)} fps` : "–");
    this.#write("offset", offsetInWords(figures.offset));
    this.#write("delay", ms(figures.delay));
    for (const name of ["network", "engine", "margin", "playout-delay", "buffer"]) this.#write(name, ms(figures[name]));
    this.#fields.margin.parentElement.hidden = !Number.isFinite(figures.margin);
    this.#write("compute", Number.isFinite(figures.compute) ? `${figures.compute} ms` : "–");
    this.#write("lost", `${figures.lost} of ${figures.frames}`);
  }

  #write(name, text) {
    this.#fields[name].textContent = text;
  }
}

// What is counted from the beginning of a connection; null before the first picture.
function reading(report) {
  const inbound = {};
  let roundTrip = NaN;
  for (const stat of report.values()) {
    if (stat.type === "inbound-rtp") inbound[stat.kind] = stat;
    if (stat.type === "candidate-pair" && stat.nominated) roundTrip = stat.currentRoundTripTime * 1000;
  }
  const { video, audio } = inbound;
  return video && audio ? { at: performance.now(), video, audio, roundTrip } : null;
}

function between(before, now, server) {
  const { video, audio } = now;
  const grown = (kind, name) => now[kind][name] - before[kind][name];
  const seconds = (now.at - before.at) / 1000;
  const arrived = grown("video", "packetsReceived") + grown("audio", "packetsReceived");
  const missing = grown("video", "packetsLost") + grown("audio", "packetsLost");
  const figures = {
    fps: seconds ? grown("video", "framesDecoded") / seconds : NaN,
    offset: playedAt(video) - playedAt(audio),
    network: now.roundTrip,
    engine: server.engine_delay_ms,
    margin: server.source_margin_ms ?? NaN, // a server that has none does not say it
    "playout-delay": server.playout_delay_ms,
    buffer: (1000 * grown("video", "jitterBufferDelay")) / grown("video", "jitterBufferEmittedCount"),
    compute: server.compute_ms_p95 ?? NaN,
    lost: server.late_frames + server.dropped_frames + (video.framesDropped ?? 0),
    frames: server.frames,
    missing: arrived + missing > 0 ? missing / (arrived + missing) : 0,
  };
  const parts = [figures.network, figures.engine, figures.margin || 0, figures["playout-delay"], figures.buffer];
  figures.delay = parts.reduce((sum, part) => sum + part, 0);
  return figures;
}

function judge(figures, fps) {
  if (figures.missing > PATCHY_SHARE) {
    return ["Patchy", `${Math.round(100 * figures.missing)} % of what the server sends does not arrive: a weak network.`];
  }
  if (fps && figures.fps < SMOOTH_SHARE * fps) {
    return ["Choppy", `${Math.round(figures.fps)} of ${Math.round(fps)} fps: the server or this machine is busy.`];
  }
  if (Math.abs(figures.offset) > UNSYNCED_MS) {
    return ["Unsynced", "Lips and sound are apart; the browser is bringing them together."];
  }
  if (figures.delay > SLOW_MS) return ["Delayed", "The avatar follows late: the network holds packets up."];
  return ["Good", "Pictures, sound and delay are as they should be."];
}

// The sender's time of what is playing. Video minus audio: above 0, the sound is late.
const playedAt = (stat) => stat.estimatedPlayoutTimestamp ?? NaN;

function offsetInWords(offset) {
  if (!Number.isFinite(offset)) return "–";
  if (Math.abs(offset) < 1) return "in step";
  return `sound ${ms(Math.abs(offset))} ${offset > 0 ? "late" : "early"}`;
}
