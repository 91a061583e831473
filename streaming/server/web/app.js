// The page: from the lobby into a call, and back with the reason.

import { Call } from "./call.js";
import { CallBar } from "./call_bar.js";
import { Server } from "./http.js";
import { Lobby } from "./lobby.js";
import { Meter } from "./meter.js";
import { inWords } from "./words.js";

const $ = (id) => document.getElementById(id);
const NOTICE_MS = 4000;
const FIRST_NOTICE_MS = 8000;
// Said when a call begins, and read out by screen readers; the label in the picture stays.
const SYNTHETIC = "The picture is synthetic: AI moves its lips.";
const server = new Server();
const picture = $("picture");
const bar = new CallBar();
const lobby = new Lobby(server, status);
let call = null;
let voice = null;
let meter = null;
let fading = null;

function status(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

// Over the picture. What does not `stay` goes by itself.
function notice(text, stay = false, forMs = NOTICE_MS) {
  clearTimeout(fading);
  $("notice").textContent = text;
  $("notice").classList.toggle("waiting", stay);
  if (!stay && text) fading = setTimeout(() => notice(""), forMs);
}

function show(calling) {
  document.body.classList.toggle("calling", calling);
  $("lobby").hidden = calling;
}

async function start() {
  let made = null;
  let spoken = null;
  const current = () => voice === spoken;
  try {
    spoken = voice = lobby.voice(
      () => notice("The microphone has stopped. End the call and choose another one.", true),
      () => { if (current()) fileEnded("The file has been said."); },
    );
    const speaks = "play" in spoken;
    show(true);
    status("");
    picture.muted = !lobby.plays;
    bar.open(speaks, lobby.plays);
    notice(speaks ? "Connecting …" : "Allow the microphone …", true);
    await spoken.open(lobby.plays);
    if (!current()) return;
    notice("Connecting …", true);
    made = call = new Call(server.request, lobby.targets.chosen.name, spoken.track);
    listen(made);
    await made.start();
    if (!current()) return;
    attach();
    meter = new Meter(made, $("meter"), lobby.targets.chosen.fps, (...judged) => bar.judge(...judged));
    bar.startTime();
    if (speaks) sayFile();
    else notice(`Connected: talk. ${SYNTHETIC}`, false, FIRST_NOTICE_MS);
  } catch (error) {
    if (voice && !current()) return; // ended meanwhile
    await stop(inWords(error), true);
    if (error.status === 401) lobby.askForToken();
  }
}

function listen(made) {
  const also = (name, act) => made.addEventListener(name, (event) => { if (call === made) act(event.detail); });
  also("lost", () => {
    freeze();
    voice.hold();
    bar.judge("Lost", "Nothing arrives from the server. The page tries again for 30 seconds.", false);
    notice("Connecting again …", true);
  });
  also("live", ({ resumed }) => {
    attach();
    voice.resume();
    meter?.reset();
    bar.judge("Good", "The connection is back.", true);
    notice(resumed ? "Connected again." : "Connected again; the conversation began anew.");
  });
  also("ended", ({ reason }) => stop(reason, true));
}

// Show and play what arrives.
function attach() {
  if (picture.srcObject !== call.stream) picture.srcObject = call.stream;
  picture.play().catch(() => {
    // The browser wants a click before it plays sound.
    picture.muted = true;
    bar.soundOff();
    notice("Press the loudspeaker to hear the avatar.");
    picture.play().catch(() => {});
  });
}

// The last picture stays while there is no new one.
function freeze() {
  if (!picture.videoWidth) return;
  const still = Object.assign(document.createElement("canvas"), { width: picture.videoWidth, height: picture.videoHeight });
  still.getContext("2d").drawImage(picture, 0, 0);
  picture.poster = still.toDataURL("image/jpeg");
}

function sayFile() {
  voice.play();
  bar.saying(true);
  notice(`The avatar says the file. ${SYNTHETIC}`, false, FIRST_NOTICE_MS);
}

function fileEnded(text) {
  bar.saying(false);
  notice(text);
}

async function stop(text = "The call has ended.", wrong = false) {
  const ended = call;
  voice?.stop();
  meter?.stop();
  call = voice = meter = null;
  bar.close();
  notice("");
  picture.srcObject = null;
  picture.poster = lobby.targets.posterOfChosen;
  show(false);
  status(text, wrong);
  $("start").focus({ preventScroll: true });
  await ended?.end();
}

bar.addEventListener("mute", ({ detail: muted }) => {
  if (voice?.track) voice.track.enabled = !muted;
  notice(muted ? "Your voice is muted." : "Your voice is heard.");
});
bar.addEventListener("speaker", async ({ detail: muted }) => {
  picture.muted = muted;
  notice(muted ? "The avatar’s sound is off." : "The avatar’s sound is on.");
  if (muted || !call || voice.cancelsEcho !== false) return;
  try {
    await voice.open(true); // it was opened for a silent avatar
    await call?.replaceTrack(voice.track);
  } catch (error) {
    notice(inWords(error), true);
  }
});
bar.addEventListener("interrupt", async () => {
  voice.interrupt();
  fileEnded("Interrupted.");
  await call.interrupt().catch((error) => notice(inWords(error)));
});
bar.addEventListener("again", sayFile);
bar.addEventListener("end", () => stop());
picture.addEventListener("resize", () => {
  if (picture.videoWidth) $("stage").style.setProperty("--ratio", picture.videoWidth / picture.videoHeight);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!call && !voice) start();
});
addEventListener("pagehide", () => call?.end());
lobby.list();
