// One call: a voice goes out, the avatar's picture and sound come back in the same connection.

const GATHERING_MS = 2000;
// Held before it is shown, at least. Sound takes 50 ms of its own accord and pictures 20, so they
// would be out of step by 30 for the first half minute, until Chromium has held pictures as long.
const HELD_MS = { audio: 0, video: 70 };

export class Call {
  #token;
  #location = null;

  constructor(token, voice) {
    this.#token = token;
    this.voice = voice;
    this.stream = new MediaStream();
  }

  // For `voice` (an audio track), with the ICE servers that this server names.
  static async open(token, voice) {
    const made = new Call(token, voice);
    made.pc = new RTCPeerConnection(await (await made.#fetch("/api/config")).json());
    return made;
  }

  // Connect with `target`. Resolves when the server has answered.
  async start(target) {
    const sound = this.pc.addTransceiver(this.voice, { direction: "sendrecv" });
    const picture = this.pc.addTransceiver("video", { direction: "recvonly" });
    for (const transceiver of [sound, picture]) {
      const receiver = transceiver.receiver;
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = HELD_MS[receiver.track.kind];
      this.stream.addTrack(receiver.track);
    }
    await this.pc.setLocalDescription();
    await this.#gathered();
    const response = await this.#fetch(`/whip?target=${encodeURIComponent(target)}`, {
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

  // What the server knows of this conversation.
  async figures() {
    if (!this.#location) return null;
    return (await this.#fetch(this.#location)).json();
  }

  async stop() {
    this.voice?.stop();
    const location = this.#location;
    this.#location = null;
    if (location) {
      // A server that is gone has ended the call as well.
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
      // A network that answers no candidate request must not hold the call up.
      const timer = setTimeout(resolve, GATHERING_MS);
      this.pc.addEventListener("icegatheringstatechange", () => {
        if (this.pc.iceGatheringState !== "complete") return;
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

// The microphone as it is: what cleans it for people only delays it for us.
export async function microphone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
  });
  return stream.getAudioTracks()[0];
}

// A file, played once as if it were spoken.
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
