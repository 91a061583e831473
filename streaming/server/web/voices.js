// The voice of a call: a microphone, or an audio file that is said once.

import { PlainError } from "./words.js";

const DRAIN_MS = 800; // from the end of a file's sound to the end of the avatar's

// Why this page cannot have a microphone, or null.
export function whyNoMicrophone() {
  if (isSecureContext && navigator.mediaDevices?.getUserMedia) return null;
  if (isSecureContext) return "This browser gives pages no microphone. Use another browser, or an audio file.";
  return (
    "Browsers give the microphone only to pages from https:// or from the same machine. Ask whoever runs the server " +
    "to start it with --tls self-signed (or --tls CERT KEY) and open its https:// address; on the server’s own " +
    `machine open http://localhost:${location.port || 80}${location.pathname}. An audio file works here as well.`
  );
}

// Without noise suppression and gain control, which do not help the engine. `cancelEcho` where the
// avatar is heard: its sound would come back by the microphone, and it would say itself.
export async function openMicrophone(device, cancelEcho) {
  const wrong = whyNoMicrophone();
  if (wrong) throw new PlainError(wrong);
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: {
      ...(device ? { deviceId: { exact: device } } : {}),
      echoCancellation: cancelEcho,
      noiseSuppression: false,
      autoGainControl: false,
      channelCount: 1,
    },
  });
  return stream.getAudioTracks()[0];
}

export class MicrophoneVoice {
  #device;
  #stopped = false;

  // `lost` is called when the microphone stops by itself.
  constructor(device, lost) {
    this.#device = device;
    this.lost = lost;
  }

  async open(cancelEcho) {
    const track = await openMicrophone(this.#device, cancelEcho);
    if (this.#stopped) return track.stop();
    track.enabled = this.track?.enabled ?? true;
    this.track?.stop();
    this.track = track;
    this.cancelsEcho = cancelEcho;
    track.addEventListener("ended", () => { if (this.track === track) this.lost(); });
  }

  hold() {}

  resume() {}

  stop() {
    this.#stopped = true;
    this.track?.stop();
  }
}

export class FileVoice {
  #context = new AudioContext();
  #player = null;

  // `said` is called when the file has been said to its end.
  constructor(file, said) {
    this.#file = file;
    this.#said = said;
  }

  #file;
  #said;
  #sound;
  #out;

  async open() {
    try {
      this.#sound = await this.#context.decodeAudioData(await this.#file.arrayBuffer());
    } catch {
      throw new PlainError(`${this.#file.name} is not a sound file that this browser can read. Choose a WAV, MP3 or M4A file.`);
    }
    this.#out = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
    this.track = this.#out.stream.getAudioTracks()[0];
  }

  // From its beginning.
  play() {
    this.interrupt();
    const player = new AudioBufferSourceNode(this.#context, { buffer: this.#sound });
    player.connect(this.#out);
    player.addEventListener("ended", () =>
      setTimeout(() => { if (this.#player === player) this.#said(); }, DRAIN_MS));
    this.#player = player;
    this.resume();
    player.start();
  }

  interrupt() {
    const player = this.#player;
    this.#player = null;
    player?.stop();
  }

  // While nobody hears it, it waits.
  hold() {
    this.#context.suspend();
  }

  resume() {
    this.#context.resume();
  }

  stop() {
    this.interrupt();
    this.track?.stop();
    this.#context.close();
  }
}
