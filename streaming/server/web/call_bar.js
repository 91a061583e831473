// What lies over the picture during a call: time, quality, and the round buttons.

const $ = (id) => document.getElementById(id);

// Events: "mute" and "speaker" (detail: pressed), "interrupt", "again", "end".
export class CallBar extends EventTarget {
  #began = 0;
  #timer = null;

  constructor() {
    super();
    for (const name of ["mute", "speaker"]) {
      $(name).addEventListener("click", () => {
        const pressed = !isPressed($(name));
        press($(name), pressed);
        this.dispatchEvent(new CustomEvent(name, { detail: pressed }));
      });
    }
    $("interrupt").addEventListener("click", () =>
      this.dispatchEvent(new Event($("interrupt").classList.contains("said") ? "again" : "interrupt")));
    $("end").addEventListener("click", () => this.dispatchEvent(new Event("end")));
    $("quality").addEventListener("click", () => this.#unfold($("meter").hidden));
    $("full").addEventListener("click", () =>
      document.fullscreenElement ? document.exitFullscreen() : $("stage").requestFullscreen().catch(() => {}));
    document.addEventListener("fullscreenchange", () => press($("full"), Boolean(document.fullscreenElement)));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || $("meter").hidden) return;
      if ($("meter").contains(document.activeElement)) $("quality").focus();
      this.#unfold(false);
    });
    // On phones without it a picture could fill the screen only without the bar.
    $("full").hidden = !document.fullscreenEnabled;
  }

  // `speaks`: the voice is a file's, which can be interrupted and said again, and needs no muting.
  open(speaks, soundOn) {
    $("top").hidden = $("bar").hidden = false;
    $("mute").hidden = speaks;
    $("interrupt").hidden = true;
    press($("mute"), false);
    press($("speaker"), !soundOn);
    this.judge("Connecting", "The call begins.", false);
    this.#began = 0;
    this.#showTime();
    (speaks ? $("end") : $("mute")).focus({ preventScroll: true });
  }

  startTime() {
    this.#began = performance.now();
    this.#timer = setInterval(() => this.#showTime(), 1000);
  }

  close() {
    clearInterval(this.#timer);
    this.#unfold(false);
    $("top").hidden = $("bar").hidden = true;
    if (document.fullscreenElement) document.exitFullscreen();
  }

  // One word for the quality, and why.
  judge(word, reason, good) {
    if ($("quality-word").textContent !== word) $("quality-word").textContent = word;
    if ($("quality-reason").textContent !== reason) $("quality-reason").textContent = reason;
    $("quality").classList.toggle("good", good);
  }

  // The file is being said, or could be said again.
  saying(now) {
    const button = $("interrupt");
    const name = now ? "Interrupt: the avatar stops saying the file" : "Say the file again";
    button.hidden = false;
    button.classList.toggle("said", !now);
    button.title = $("interrupt-name").textContent = name;
  }

  soundOff() {
    press($("speaker"), true);
  }

  #unfold(open) {
    $("meter").hidden = !open;
    $("quality").setAttribute("aria-expanded", String(open));
  }

  #showTime() {
    const seconds = this.#began ? Math.floor((performance.now() - this.#began) / 1000) : 0;
    const [hours, minutes, rest] = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map(Math.floor);
    const two = (value) => String(value).padStart(2, "0");
    $("time").textContent = hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  }
}

function isPressed(button) {
  return button.getAttribute("aria-pressed") === "true";
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}
