// werift, WebRTC in TypeScript, as a sender, a viewer and a caller. See README.md.

import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters } from "werift";
import { SILENCE, every20ms, post, rtp, run, within } from "./calls.mjs";

const OPUS = new RTCRtpCodecParameters({ mimeType: "audio/opus", clockRate: 48000, channels: 2 });
const VP8 = new RTCRtpCodecParameters({
  mimeType: "video/VP8", clockRate: 90000, rtcpFeedback: [{ type: "nack", parameter: "pli" }],
});

async function connect(url, sound, picture) {
  const peer = new RTCPeerConnection({ codecs: { audio: [OPUS], video: [VP8] } });
  const voice = new MediaStreamTrack({ kind: "audio" });
  const counts = { audio: 0, video: 0 };
  peer.onTrack.subscribe((track) => track.onReceiveRtp.subscribe(() => { counts[track.kind] += 1; }));
  peer.addTransceiver(sound === "recvonly" ? "audio" : voice, { direction: sound });
  peer.addTransceiver("video", { direction: picture });
  try {
    await peer.setLocalDescription(await peer.createOffer());
    const session = await post(url, peer.localDescription.sdp);
    await peer.setRemoteDescription({ type: "answer", sdp: session.sdp });
    const connected = () => new Promise((done) => {
      if (peer.connectionState === "connected") done();
      peer.connectionStateChange.subscribe((state) => state === "connected" && done());
    });
    await within(10, "connection", connected());
    return { peer, voice, counts, session };
  } catch (error) {
    await peer.close();
    throw error;
  }
}

async function speak({ voice, session }, seconds) {
  await every20ms(seconds, (k) => voice.writeRtp(rtp(96, false, k, 960 * k, 1, SILENCE)));
  return session.figures();
}

async function ended({ peer, session }) {
  await session.end();
  await peer.close();
}

async function push(url, seconds) {
  const call = await connect(url, "sendonly", "sendonly");
  const figures = await speak(call, seconds);
  await ended(call);
  if (figures.error || figures.since_audio_ms === null) throw new Error(figures.error ?? "no voice came in");
  return { since_audio_ms: figures.since_audio_ms };
}

async function watch(url, seconds) {
  const call = await connect(url, "recvonly", "recvonly");
  await new Promise((wake) => setTimeout(wake, 1000 * seconds));
  await ended(call);
  if (!call.counts.audio || !call.counts.video) throw new Error(`packets: ${JSON.stringify(call.counts)}`);
  return call.counts;
}

async function both(url, seconds) {
  const call = await connect(url, "sendrecv", "recvonly");
  const figures = await speak(call, seconds);
  await ended(call);
  if (figures.error || figures.since_audio_ms === null) throw new Error(figures.error ?? "no voice came in");
  if (!call.counts.audio || !call.counts.video) throw new Error(`packets: ${JSON.stringify(call.counts)}`);
  return { ...call.counts, since_audio_ms: figures.since_audio_ms };
}

await run({ push, watch, call: both });
