// libdatachannel, which OBS uses for WHIP, as a sender and as a viewer. See README.md.

import nodeDataChannel from "node-datachannel";
import { SILENCE, every20ms, post, rtp, run, within } from "./calls.mjs";

const VIDEO_BYTES = 1100; // eleven packets every 40 ms: 2.4 Mb/s

async function connect(url, direction) {
  const peer = new nodeDataChannel.PeerConnection("client", { iceServers: [] });
  const audio = new nodeDataChannel.Audio("audio", direction);
  audio.addOpusCodec(111);
  const video = new nodeDataChannel.Video("video", direction);
  video.addH264Codec(96);
  if (direction === "SendOnly") {
    audio.addSSRC(1, "voice");
    video.addSSRC(2, "picture");
  }
  const tracks = [peer.addTrack(audio), peer.addTrack(video)];
  const counts = [0, 0];
  tracks.forEach((track, k) => track.onMessage(() => { counts[k] += 1; }));
  const open = Promise.all(tracks.map((track) => new Promise((done) => track.onOpen(done))));
  const connected = new Promise((done, failed) => peer.onStateChange((state) => {
    if (state === "connected") done(open);
    if (state === "failed" || state === "closed") failed(new Error(state));
  }));
  connected.catch(() => {});
  try {
    const gathered = new Promise((done) => peer.onGatheringStateChange((s) => s === "complete" && done()));
    peer.setLocalDescription("offer");
    await within(10, "gathering", gathered);
    const session = await post(url, peer.localDescription().sdp);
    try {
      peer.setRemoteDescription(session.sdp, "answer");
      await within(10, "connection", connected);
    } catch (error) {
      await session.end();
      throw error;
    }
    return { peer, tracks, counts, session };
  } catch (error) {
    peer.close();
    throw error;
  }
}

async function push(url, seconds) {
  const { peer, tracks, session } = await connect(url, "SendOnly");
  const picture = Buffer.concat([Buffer.from([0x61]), Buffer.alloc(VIDEO_BYTES, 0x55)]);
  let videoPackets = 0;
  await every20ms(seconds, (k) => {
    tracks[0].sendMessageBinary(rtp(111, false, k, 960 * k, 1, SILENCE));
    if (k % 2) return;
    for (let part = 0; part < 11; part++) {
      const packet = rtp(96, part === 10, videoPackets++, 1800 * k, 2, picture);
      tracks[1].sendMessageBinary(packet);
    }
  });
  const figures = await session.figures();
  await session.end();
  peer.close();
  if (figures.error) throw new Error(figures.error);
  if (figures.since_audio_ms === null) throw new Error("connected, and no voice came in");
  return { since_audio_ms: figures.since_audio_ms, dropped_sound_ms: figures.dropped_sound_ms };
}

async function watch(url, seconds) {
  const { peer, counts, session } = await connect(url, "RecvOnly");
  await new Promise((wake) => setTimeout(wake, 1000 * seconds));
  await session.end();
  peer.close();
  if (!counts[0] || !counts[1]) throw new Error(`packets of sound, picture: ${counts}`);
  return { audio_packets: counts[0], video_packets: counts[1] };
}

await run({ push, watch });
