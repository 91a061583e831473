// One WebRTC connection: a voice is sent, and the avatar's picture and sound return.

const GATHERING_MS = 1000;
const TELLING_MS = 500;
// Minimum jitter buffer delays. By default Chromium delays sound by 50 ms and video by 20 ms, which is
// an A/V offset of 30 ms for the first half minute, until it has adapted the video delay.
const BUFFER_MS = { audio: 0, video: 70 };

export class Connection {
  #request;
  #path = null; // of the session, once the server has answered
  #seen = 0; // packets at the last look
  #gone = new AbortController(); // of requests about a session that is over
  stream = new MediaStream();
  token = null; // to take the conversation up again
  resumed = false;

  constructor(request, config) {
    this.#request = request;
    this.pc = new RTCPeerConnection(config);
  }

  // Connect `track` with `target`, in the conversation that `token` stands for where it still is.
  // Resolves when the server has answered.
  async open(target, track, token, signal) {
    this.sound = this.pc.addTransceiver(track, { direction: "sendrecv" });
    const picture = this.pc.addTransceiver("video", { direction: "recvonly" });
    for (const { receiver } of [this.sound, picture]) {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = BUFFER_MS[receiver.track.kind];
      this.stream.addTrack(receiver.track);
    }
    await this.pc.setLocalDescription();
    await this.#gathered();
    const response = await this.#request(`whip?target=${encodeURIComponent(target)}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", ...(token ? { "Lipstream-Resume": token } : {}) },
      body: this.pc.localDescription.sdp,
      signal,
    });
    // By its last part: a proxy that serves under another path may not rewrite the header.
    this.#path = `sessions/${response.headers.get("Location").split("/").pop()}`;
    this.token = response.headers.get("Lipstream-Resume");
    this.resumed = response.headers.get("Lipstream-Resumed") === "yes";
    await this.pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }

  // Whether anything has arrived since the last look.
  async flows() {
    if (this.pc.connectionState === "closed") return false;
    let packets = 0;
    for (const stat of (await this.pc.getStats()).values()) {
      if (stat.type === "inbound-rtp") packets += stat.packetsReceived;
    }
    const more = packets > this.#seen;
    this.#seen = packets;
    return more;
  }

  get broken() {
    return ["failed", "closed"].includes(this.pc.connectionState);
  }

  // The server's statistics of the conversation; null before it has answered.
  async statistics(signal) {
    const signals = signal ? [signal, this.#gone.signal] : [this.#gone.signal];
    return this.#path && (await this.#request(this.#path, { signal: AbortSignal.any(signals) })).json();
  }

  async interrupt() {
    await this.#request(`${this.#path}/interrupt`, { method: "POST" });
  }

  async end() {
    const path = this.#path;
    this.#path = null;
    this.#gone.abort();
    if (path) {
      // Told before the media ends, or the session would be gone. A server that cannot be reached
      // notices by itself.
      const told = this.#request(path, { method: "DELETE", keepalive: true }).catch(() => {});
      await Promise.race([told, new Promise((resolve) => setTimeout(resolve, TELLING_MS))]);
    }
    this.pc.close();
  }

  // Without a word to the server, which keeps the conversation for a while.
  close() {
    this.#path = null;
    this.#gone.abort();
    this.pc.close();
  }

  #gathered() {
    if (this.pc.iceGatheringState === "complete") return Promise.resolve();
    return new Promise((resolve) => {
      // A STUN or TURN server that does not answer must not hold the call up.
      const timer = setTimeout(resolve, GATHERING_MS);
      this.pc.addEventListener("icegatheringstatechange", () => {
        if (this.pc.iceGatheringState !== "complete") return;
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
