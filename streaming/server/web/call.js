// One call: a voice is sent, and the avatar's picture and sound return in the same connection.

const GATHERING_MS = 2000;
// Minimum jitter buffer delays. By default Chromium delays sound by 50 ms and video by 20 ms, which is
// an A/V offset of 30 ms for the first half minute, until it has adapted the video delay.
const BUFFER_MS = { audio: 0, video: 70 };

export class Call {
  #token;
  #location = null;

  constructor(token, voice) {
    this.#token = token;
    this.voice = voice;
    this.stream = new MediaStream();
  }

  // For `voice` (an audio track), with the ICE servers that the server lists.
  static async open(token, voice) {
    const made = new Call(token, voice);
    made.pc = new RTCPeerConnection(await (await made.#fetch("api/config")).json());
    return made;
  }

  // Connect with `target`. Resolves when the server has answered.
  async start(target) {
    const sound = this.pc.addTransceiver(this.voice, { direction: "sendrecv" });
    const picture = this.pc.addTransceiver("video", { direction: "recvonly" });
    for (const transceiver of [sound, picture]) {
      const receiver = transceiver.receiver;
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = BUFFER_MS[receiver.track.kind];
      this.stream.addTrack(receiver.track);
    }
    await this.pc.setLocalDescription();
    await this.#gathered();
    const response = await this.#fetch(`whip?target=${encodeURIComponent(target)}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: this.pc.localDescription.sdp,
    });
    this.#location = response.headers.get("Location");
    await this.pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
  }

  async interrupt() {
    const response = await this.#fetch(`${this.#location}/interrupt`, { method: "POST" });
    return (await response.json()).played_ms;
  }

  // The server's statistics of this conversation.
  async statistics() {
    if (!this.#location) return null;
    return (await this.#fetch(this.#location)).json();
  }

  async stop() {
    this.voice?.stop();
    const location = this.#location;
    this.#location = null;
    if (location) {
      // When the server cannot be reached, the call has ended anyway.
      await fetch(location, { method: "DELETE", headers: this.#headers(), keepalive: true }).catch(() => {});
    }
    this.pc.close();
  }

  #headers() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  async #fetch(path, options = {}) {
    const response = await fetch(path, { ...options, headers: { ...options.headers, ...this.#headers() } });
    if (!response.ok) {
      const body = await response.json().catch(() => ({}));
      const error = new Error(body.error ?? `the server answered ${response.status}`);
      throw Object.assign(error, { status: response.status });
    }
    return response;
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

// The microphone without processing: the browser's filters add delay and do not help the engine.
export async function microphone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
  });
  return stream.getAudioTracks()[0];
}

// An audio file, played once in place of a microphone.
export async function fileVoice(file, context) {
  let sound;
  try {
    sound = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is not a sound file that this browser can read`);
  }
  const player = new AudioBufferSourceNode(context, { buffer: sound });
  const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  player.connect(out);
  return { track: out.stream.getAudioTracks()[0], play: () => player.start() };
}
