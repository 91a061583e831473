"""JavaScript for the page under test: it calls the server and times sound and picture.

All times come from one clock, `performance.now` of the page. An onset of sound is the first time
that a window of 256 samples (5.3 ms at 48 kHz) of an analyser exceeds a level; it is polled every
4 ms. A picture is timed when `requestVideoFrameCallback` reports it.
"""

from typing import Final

# window.listen(stream, name) notes when each burst in a stream begins, ms of `performance.now`.
LISTEN: Final = """
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
"""

# window.onsets: ms of `performance.now` of each burst at the microphone, in the sound that comes
# back and in the picture. window.shown: [ms, frame counter] of every picture.
TAP: Final = (
    LISTEN
    + """
window.onsets = { microphone: [], sound: [], picture: [] };
window.shown = [];
window.watch = (video, bits) => {
  const canvas = new OffscreenCanvas(bits, 4);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  let white = true;
  const onFrame = () => {
    const at = performance.now();
    pen.drawImage(video, 0, 0, bits, 4);
    const pixels = pen.getImageData(0, 0, bits, 4).data;
    const now = pixels[4 * Math.floor(bits / 2)] > 128;
    if (now && !white) window.onsets.picture.push(at);
    white = now;
    let counter = 0;
    for (let k = 0; k < bits; k++) counter = 2 * counter + (pixels[4 * (3 * bits + k)] > 128);
    window.shown.push([at, counter]);
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);
};
"""
)

# Resolves when the call is established and the video plays.
CALL: Final = """
async (bits) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 } });
  window.listen(stream, "microphone");
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
  window.listen(back, "sound");
  window.watch(video, bits);
}
"""
