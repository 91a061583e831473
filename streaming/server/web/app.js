// The page: its controls and its status line.

import { Call, fileVoice, microphone } from "./call.js";
import { Meter } from "./meter.js";
import { Targets } from "./targets.js";

const $ = (id) => document.getElementById(id);
const picture = $("picture");
const targets = new Targets($("target"), picture, $("about"), () =>
  token() ? { Authorization: `Bearer ${token()}` } : {});
let call = null;
let meter = null;
let context = null;

function setStatus(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function token() {
  return $("token").value.trim();
}

function show(live) {
  $("start").disabled = live;
  for (const id of ["mute", "interrupt", "stop"]) $(id).disabled = !live;
  $("idle").hidden = live;
  $("target").disabled = live;
}

async function listTargets() {
  const count = await targets.list();
  if (count === null) {
    $("access").open = true;
    setStatus("This server asks for its access token.", true);
  } else {
    setStatus(count ? "Ready." : "This server has no targets.", !count);
  }
}

function chosenVoice() {
  return document.querySelector("input[name=voice]:checked").value;
}

async function start() {
  const file = $("file").files[0];
  if (chosenVoice() === "file" && !file) return setStatus("Choose an audio file first.", true);
  $("start").disabled = true;
  setStatus("Connecting …");
  let now = null;
  let track = null;
  try {
    let play = null;
    if (chosenVoice() === "file") {
      context = new AudioContext();
      ({ track, play } = await fileVoice(file, context));
    } else {
      track = await microphone();
      track.addEventListener("ended", () => {
        if (call === now) setStatus("The microphone has stopped; the call goes on without a voice.", true);
      });
    }
    call = now = await Call.open(token(), track);
    now.pc.addEventListener("connectionstatechange", () => {
      if (call !== now) return;
      if (now.pc.connectionState === "connected") {
        setStatus(play ? "Connected: the avatar speaks the file." : "Connected: talk.");
        play?.();
      }
      if (now.pc.connectionState === "failed") stop("The connection was lost.", true);
    });
    await now.start(targets.chosen);
    picture.srcObject = now.stream;
    picture.muted = false;
    await picture.play();
    meter = new Meter(now, $("meter"), (reason) => stop(`The server says: ${reason}.`, true));
    show(true);
    $("stop").focus();
  } catch (error) {
    const denied = error.name === "NotAllowedError" || error.name === "NotFoundError";
    track?.stop();
    await now?.stop();
    await stop(denied ? "No microphone: allow it in the browser, or use an audio file." : `Could not start: ${error.message}.`, true);
  }
}

async function stop(text = "Stopped.", wrong = false) {
  const ended = call;
  call = null;
  meter?.stop();
  meter = null;
  picture.srcObject = null;
  show(false);
  $("mute").setAttribute("aria-pressed", "false");
  setStatus(text, wrong);
  await ended?.stop();
  await context?.close();
  context = null;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("stop").addEventListener("click", () => stop());
$("interrupt").addEventListener("click", async () => {
  try {
    await call?.interrupt();
    setStatus("Interrupted.");
  } catch (error) {
    setStatus(`Could not interrupt: ${error.message}.`, true);
  }
});
$("mute").addEventListener("click", () => {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  if (call?.voice) call.voice.enabled = !muted;
  $("mute").setAttribute("aria-pressed", String(muted));
  setStatus(muted ? "Your voice is muted." : "Your voice is heard.");
});
$("token").addEventListener("change", () => listTargets().catch(unreachable));
for (const choice of document.querySelectorAll("input[name=voice]")) {
  choice.addEventListener("change", () => { $("drop").hidden = chosenVoice() !== "file"; });
}

// A file may be dropped anywhere on the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  document.querySelector("input[name=voice][value=file]").checked = true;
  $("drop").hidden = false;
  $("file").files = event.dataTransfer.files;
  setStatus(`${event.dataTransfer.files[0].name}: press Start.`);
});
addEventListener("pagehide", () => call?.stop());

function unreachable() {
  setStatus("The server cannot be reached.", true);
}

if (location.hash.startsWith("#token=")) {
  $("token").value = decodeURIComponent(location.hash.slice(7));
  history.replaceState(null, "", location.pathname);
}
listTargets().catch(unreachable);
