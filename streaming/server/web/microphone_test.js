// Before a call: which microphone, how loud it is, and how it sounds.

import { openMicrophone } from "./voices.js";
import { inWords } from "./words.js";

const RECORD_MS = 3000;
const AUDIBLE = 0.02; // peak of a voice that the engine hears

export class MicrophoneTest {
  #view;
  #track = null;
  #player = null;
  #run = 0; // a later test or a stop ends an earlier one

  // `view`: the elements `device`, `test`, `level` and `status`.
  constructor(view) {
    this.#view = view;
    view.test.addEventListener("click", () => (this.running ? this.stop() : this.#test()));
    view.device.addEventListener("change", () => this.stop());
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listDevices());
    this.listDevices();
  }

  get device() {
    return this.#view.device.value;
  }

  get running() {
    return this.#view.test.textContent === "Stop";
  }

  // The browser tells the names once the microphone has been allowed.
  async listDevices() {
    const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => null)) ?? [];
    const named = devices.filter((d) => d.kind === "audioinput" && d.label && d.deviceId !== "default");
    const chosen = this.device;
    const usual = new Option("The browser’s usual one", "");
    this.#view.device.replaceChildren(usual, ...named.map((d) => new Option(d.label, d.deviceId)));
    if (named.some((d) => d.deviceId === chosen)) this.#view.device.value = chosen;
  }

  stop(text = "") {
    this.#run += 1;
    this.#track?.stop();
    this.#player?.pause();
    this.#track = this.#player = null;
    this.#view.test.textContent = "Test";
    this.#view.level.hidden = true;
    this.#view.status.textContent = text;
  }

  async #test() {
    this.stop();
    const run = this.#run;
    const say = (text) => { if (run === this.#run) this.#view.status.textContent = text; };
    this.#view.test.textContent = "Stop";
    say("Allow the microphone …");
    try {
      const track = await openMicrophone(this.device, false);
      if (run !== this.#run) return track.stop();
      this.#track = track;
      this.listDevices();
      say("Say something: three seconds are recorded.");
      const stream = new MediaStream([track]);
      const [sound, peak] = await Promise.all([record(stream, RECORD_MS), this.#measure(stream, run)]);
      if (run !== this.#run) return;
      track.stop();
      this.#view.level.hidden = true;
      if (peak < AUDIBLE) return this.stop("Nothing was heard. Choose another microphone, or look whether it is muted.");
      say("You should hear yourself now.");
      await this.#play(sound);
      if (run === this.#run) this.stop("The microphone works.");
    } catch (error) {
      if (run === this.#run) this.stop(inWords(error));
    }
  }

  // The bar follows the level while the track lives. Resolves to the peak.
  async #measure(stream, run) {
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(stream).connect(analyser);
    const wave = new Float32Array(1024);
    const { level } = this.#view;
    level.hidden = false;
    let most = 0;
    while (run === this.#run && this.#track.readyState === "live") {
      analyser.getFloatTimeDomainData(wave);
      const peak = wave.reduce((greatest, x) => Math.max(greatest, Math.abs(x)), 0);
      most = Math.max(most, peak);
      // −50 to 0 dB
      const share = Math.round(100 * Math.min(1, Math.max(0, 1 + (20 * Math.log10(peak + 1e-6)) / 50)));
      level.style.setProperty("--share", share / 100);
      level.setAttribute("aria-valuenow", share);
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (context.currentTime > RECORD_MS / 1000) break;
    }
    context.close();
    return most;
  }

  #play(sound) {
    const player = (this.#player = new Audio(URL.createObjectURL(sound)));
    return new Promise((resolve, reject) => {
      for (const end of ["ended", "pause"]) player.addEventListener(end, resolve);
      player.play().catch(reject);
    }).finally(() => URL.revokeObjectURL(player.src));
  }
}

function record(stream, length_ms) {
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  setTimeout(() => { if (recorder.state !== "inactive") recorder.stop(); }, length_ms);
  return new Promise((resolve) => {
    recorder.addEventListener("stop", () => resolve(new Blob(parts, { type: recorder.mimeType })));
    recorder.start();
  });
}
