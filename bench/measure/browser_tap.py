"""What a page has to do to be measured: call the server, and time voice, sound and picture.

Everything is timed by the page's own clock, in one place, so no clocks have to agree. A sound
begins when an analyser's 256 samples (5.3 ms at 48 kHz) first exceed a level; it is asked every
4 ms. A picture is timed by when the compositor shows it (`expectedDisplayTime` of
`requestVideoFrameCallback`), and by when the page could see it.
"""

from typing import Final

# window.onsets: ms of `performance.now` at which the voice was said, heard back, and seen.
# window.shown: [ms, counter] of every picture.
TAP: Final = """
window.onsets = { said: [], heard: [], seen: [] };
window.shown = [];
window.listen = (stream, name) => {
  const context = new AudioContext({ latencyHint: "interactive" });
  const analyser = new AnalyserNode(context, { fftSize: 256 });
  context.createMediaStreamSource(stream).connect(analyser);
  const wave = new Float32Array(256);
  let quietSince = 0, loud = true;
  setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    const now = performance.now();
    const peak = wave.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    if (peak > 0.3) { if (!loud) window.onsets[name].push(now); loud = true; quietSince = now; }
    else if (now - quietSince > 100) loud = false;
  }, 4);
};
window.look = (video, bits) => {
  const canvas = new OffscreenCanvas(bits, 4);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let white = true;
  const see = () => {
    const at = performance.now();
    pen.drawImage(video, 0, 0, bits, 4);
    const pixels = pen.getImageData(0, 0, bits, 4).data;
    const now = pixels[4 * Math.floor(bits / 2)] > 128;
    if (now && !white) window.onsets.seen.push(at);
    white = now;
    let counter = 0;
    for (let k = 0; k < bits; k++) counter = 2 * counter + (pixels[4 * (3 * bits + k)] > 128);
    window.shown.push([at, counter]);
    video.requestVideoFrameCallback(see);
  };
  video.requestVideoFrameCallback(see);
};
"""

# Resolves when the server has answered; the voice is the browser's microphone.
CALL: Final = """
async (bits) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 } });
  window.listen(stream, "said");
  const pc = window.pc = new RTCPeerConnection();
  const back = new MediaStream();
  const sound = pc.addTransceiver(stream.getAudioTracks()[0], { direction: "sendrecv" });
  const picture = pc.addTransceiver("video", { direction: "recvonly" });
  for (const { receiver } of [sound, picture]) {
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    back.addTrack(receiver.track);
  }
  await pc.setLocalDescription();
  for (let k = 0; k < 40 && pc.iceGatheringState !== "complete"; k++) {
    await new Promise((done) => setTimeout(done, 50));
  }
  const answer = await fetch("/whip?target=flash", { method: "POST",
    headers: { "Content-Type": "application/sdp" }, body: pc.localDescription.sdp });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  await pc.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  const video = document.createElement("video");
  video.srcObject = back; video.autoplay = true;
  document.body.replaceChildren(video);
  await video.play();
  window.listen(back, "heard");
  window.look(video, bits);
}
"""
