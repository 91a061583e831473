// What is chosen before a call: the token, the target, the voice and whether the avatar is heard.

import { MicrophoneTest } from "./microphone_test.js";
import { Targets } from "./targets.js";
import { FileVoice, MicrophoneVoice, whyNoMicrophone } from "./voices.js";
import { inWords, PlainError } from "./words.js";

const $ = (id) => document.getElementById(id);
const SOUND = "lipstream-sound";
const ASK_AGAIN_MS = 3000;

export class Lobby {
  #server;
  #say;

  // `say(text, wrong)` shows a line beside the button that starts.
  constructor(server, say) {
    this.#server = server;
    this.#say = say;
    this.targets = new Targets($("targets"), server);
    this.targets.addEventListener("chosen", () => this.#describe());
    this.test = new MicrophoneTest({ device: $("device"), test: $("test"), level: $("level"), status: $("test-status") });
    for (const choice of document.querySelectorAll("input[name=voice]")) {
      choice.addEventListener("change", () => this.#showVoice());
    }
    $("insecure").textContent = whyNoMicrophone() ?? "";
    this.#choose(whyNoMicrophone() ? "file" : "microphone");
    $("sound").checked = localStorage.getItem(SOUND) !== "off";
    $("sound").addEventListener("change", () => this.#showSound());
    this.#showSound();
    $("use-token").addEventListener("click", () => this.#useToken());
    $("token").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#useToken();
    });
    this.#takeDrops();
  }

  get plays() {
    return $("sound").checked;
  }

  // The chosen voice, not yet open; throws PlainError when nothing is chosen.
  voice(lost, said) {
    this.test.stop();
    if (this.#kind() === "microphone") return new MicrophoneVoice(this.test.device, lost);
    const file = $("file").files[0];
    if (!file) throw new PlainError("Choose an audio file first.");
    return new FileVoice(file, said);
  }

  // Ask for the targets until the server answers.
  async list() {
    try {
      const missing = await this.targets.list();
      this.#server.keepToken();
      $("access").hidden = true;
      if (missing) this.#say(`There is no target “${missing}” here. Choose another one.`, true);
      else if (!this.targets.count) {
        this.#say("This server has no targets: `lipstream calibrate VIDEO -o NAME.target` makes one.", true);
      } else this.#say("");
    } catch (error) {
      if (error.status === 401) this.askForToken();
      else {
        this.#say(inWords(error), true);
        setTimeout(() => this.list(), ASK_AGAIN_MS);
      }
    }
    $("start").disabled = !this.targets.count || !$("access").hidden;
  }

  askForToken() {
    const tried = this.#server.token !== "";
    this.#server.token = "";
    $("access").hidden = false;
    $("token-status").textContent = tried ? "That token is not this server’s. Look for a missing letter, or ask who runs it." : "";
    $("token-status").classList.toggle("wrong", tried);
    $("token").setAttribute("aria-invalid", String(tried));
    this.#say("This server asks for its access token.", true);
    $("start").disabled = true;
  }

  async #useToken() {
    if (!$("token").value.trim()) return;
    this.#server.token = $("token").value;
    await this.list();
    if ($("access").hidden) {
      $("token").value = "";
      $("start").focus({ preventScroll: true });
    } else $("token").focus();
  }

  #describe() {
    const { width, height, fps, kind, consent } = this.targets.chosen ?? {};
    $("about").textContent = width ? `${kind}, ${width} × ${height}, ${fps} fps` : "";
    $("consent").textContent = width ? consentInWords(consent) : "";
    $("consent").classList.toggle("wrong", Boolean(width) && !consent);
    $("picture").poster = this.targets.posterOfChosen;
    if (width) $("stage").style.setProperty("--ratio", width / height);
  }

  #kind() {
    return document.querySelector("input[name=voice]:checked").value;
  }

  #choose(kind) {
    document.querySelector(`input[name=voice][value=${kind}]`).checked = true;
    this.#showVoice();
  }

  #showVoice() {
    const microphone = this.#kind() === "microphone";
    const insecure = whyNoMicrophone() !== null;
    $("by-microphone").hidden = !microphone || insecure;
    $("insecure").hidden = !insecure;
    $("by-file").hidden = microphone;
    if (!microphone) this.test.stop();
  }

  #showSound() {
    localStorage.setItem(SOUND, this.plays ? "on" : "off");
    $("sound-hint").textContent = this.plays
      ? "Its echo is taken out of your microphone."
      : "You see the avatar and do not hear it; your microphone is sent as it is.";
  }

  // A file may be dropped anywhere on the page.
  #takeDrops() {
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      $("by-file").classList.add("over");
    });
    document.addEventListener("dragleave", () => $("by-file").classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      $("by-file").classList.remove("over");
      if (!event.dataTransfer.files.length || $("lobby").hidden) return;
      this.#choose("file");
      $("file").files = event.dataTransfer.files;
      this.#say(`${event.dataTransfer.files[0].name}: start the call to hear the avatar say it.`);
    });
  }
}

// Who agreed that their face is used.
function consentInWords(consent) {
  if (!consent) return "No consent of the person shown is recorded: calls are refused.";
  return `Consent: ${consent.who}, ${consent.when}, for: ${consent.for}`;
}
