"""GStreamer's webrtcbin as a WHEP viewer or a WHIP sender; run by the system's own Python.

    python3 gstreamer_client.py whep URL SECONDS H264|VP8 X,Y,WIDTH,HEIGHT
    python3 gstreamer_client.py whip URL VOICE.wav

Prints one JSON object. Times are of the monotonic clock, s, which all processes of a machine
share. whep: `pictures` [[time, pts in s, mean luma of the box]], `size`, `sounds` [time, peak].
whip: `began`, when the voice's first sample left, and `sent` buffers. Knows nothing of lipstream.
"""

import array
import base64
import json
import os
import sys
import threading
import time
import urllib.request
import wave

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

CODECS = {
    "H264": (
        ",packetization-mode=(string)1,profile-level-id=(string)42e01f",
        "rtph264depay ! h264parse ! avdec_h264",
    ),
    "VP8": ("", "rtpvp8depay ! vp8dec"),
}
OPUS = "application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000"
RECVONLY = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY


class Connection:
    """An offer by POST, an answer back; no trickle ICE."""

    def __init__(self, url, pipeline):
        self.url = url
        self.location = None
        self.pipeline = pipeline
        self.peer = pipeline.get_by_name("peer")
        self.agent = self.peer.get_property("ice-agent")  # kept, or it is freed under webrtcbin
        self.agent.emit("add-local-ip-address", "127.0.0.1")
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.posted = False

    def offer(self, peer):
        self.peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offered, None))

    def offered(self, promise, _):
        reply = promise.get_reply()  # owns the offer
        self.peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def gathered(self, peer, _):
        done = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if peer.get_property("ice-gathering-state") == done and not self.posted:
            self.posted = True
            GLib.idle_add(self.post)

    def post(self):
        sdp = self.peer.get_property("local-description").sdp.as_text()
        headers = {"Content-Type": "application/sdp"}
        request = urllib.request.Request(self.url, sdp.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.location = answer.headers["Location"]
                _, message = GstSdp.SDPMessage.new_from_text(answer.read().decode())
        except Exception as error:  # the main loop would swallow it and wait for ever
            print(f"{self.url}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        kind = GstWebRTC.WebRTCSDPType.ANSWER
        description = GstWebRTC.WebRTCSessionDescription.new(kind, message)
        self.peer.emit("set-remote-description", description, Gst.Promise.new())
        return False

    def close(self):
        self.pipeline.set_state(Gst.State.NULL)
        if self.location:
            origin = "/".join(self.url.split("/")[:3])
            request = urllib.request.Request(origin + self.location, method="DELETE")
            urllib.request.urlopen(request, timeout=10).close()


def watch(url, seconds, codec, box):
    fmtp, decoder = CODECS[codec]
    pipeline = Gst.Pipeline()  # parse_launch of one element would give the element
    pipeline.add(Gst.parse_launch("webrtcbin name=peer bundle-policy=max-bundle latency=40"))
    found = {"pictures": [], "sounds": [], "size": None}
    connection = Connection(url, pipeline)
    video = f"application/x-rtp,media=video,encoding-name={codec},payload=96,clock-rate=90000"
    video += ",rtcp-fb-nack-pli=(boolean)true" + fmtp
    for caps in (OPUS + ",encoding-params=(string)2", video):
        peer = connection.peer
        peer.emit("add-transceiver", RECVONLY, Gst.Caps.from_string(caps))

    def picture(sink):
        sample = sink.emit("pull-sample")
        buffer, caps = sample.get_buffer(), sample.get_caps().get_structure(0)
        width, height = caps.get_value("width"), caps.get_value("height")
        found["size"] = [width, height]
        stride = (width + 3) // 4 * 4
        _, data = buffer.map(Gst.MapFlags.READ)
        x, y, w, h = box
        rows = [bytes(data.data[r * stride + x : r * stride + x + w]) for r in range(y, y + h)]
        buffer.unmap(data)
        patch = base64.b64encode(b"".join(rows)).decode()
        found["pictures"].append([time.monotonic(), buffer.pts / Gst.SECOND, patch])
        return Gst.FlowReturn.OK

    def sound(sink):
        buffer = sink.emit("pull-sample").get_buffer()
        _, data = buffer.map(Gst.MapFlags.READ)
        samples = array.array("h", bytes(data.data))
        buffer.unmap(data)
        found["sounds"].append([time.monotonic(), max(map(abs, samples), default=0)])
        return Gst.FlowReturn.OK

    def added(peer, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        is_video = pad.get_current_caps().get_structure(0).get_value("media") == "video"
        text = (
            f"{decoder} ! videoconvert ! video/x-raw,format=GRAY8"
            if is_video
            else "rtpopusdepay ! opusdec ! audioconvert ! audio/x-raw,format=S16LE,channels=1"
        )
        branch = Gst.parse_bin_from_description(
            f"queue ! {text} ! appsink name=sink emit-signals=true sync=false", True
        )
        branch.get_by_name("sink").connect("new-sample", picture if is_video else sound)
        pipeline.add(branch)
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    connection.peer.connect("pad-added", added)
    run(
        pipeline, lambda: found["pictures"] and time.monotonic() - found["pictures"][0][0] > seconds
    )
    connection.close()
    return found


def send(url, voice):
    with wave.open(voice) as file:
        rate_hz, frames = file.getframerate(), file.getnframes()
        pcm = file.readframes(frames)
    packet = 2 * rate_hz // 50
    pipeline = Gst.parse_launch(
        "appsrc name=voice format=time is-live=true caps=audio/x-raw,format=S16LE,"
        f"layout=interleaved,channels=1,rate={rate_hz} ! audioconvert ! audioresample ! "
        f"audio/x-raw,rate=48000 ! opusenc ! rtpopuspay pt=111 ! {OPUS} ! "
        "webrtcbin name=peer bundle-policy=max-bundle"
    )
    found = {"began": None, "sent": 0}
    connection = Connection(url, pipeline)
    # The offer of a sender is not to receive: a call would be another conversation.
    transceiver = connection.peer.emit("get-transceiver", 0)
    transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    source = pipeline.get_by_name("voice")
    over = threading.Event()

    def speak():
        """20 ms every 20 ms: silence until the connection is up, then the voice."""
        connected = GstWebRTC.WebRTCPeerConnectionState.CONNECTED
        origin_s, packets, at = time.monotonic(), 0, 0
        while at < len(pcm) and not over.is_set():
            time.sleep(max(0, origin_s + 0.02 * packets - time.monotonic()))
            if found["began"] is None:
                data = bytes(packet)
                if connection.peer.get_property("connection-state") == connected and packets > 50:
                    found["began"] = time.monotonic()
            if found["began"] is not None:
                data = pcm[at : at + packet]
                at += packet
                found["sent"] += 1
            buffer = Gst.Buffer.new_wrapped(data)
            buffer.pts = packets * Gst.SECOND // 50
            source.emit("push-buffer", buffer)
            packets += 1
        time.sleep(0.5)
        source.emit("end-of-stream")

    thread = threading.Thread(target=speak)
    thread.start()
    run(pipeline, lambda: not thread.is_alive())
    over.set()
    thread.join()
    connection.close()
    return found


def run(pipeline, done):
    """Until `done`, the end of the stream, or an error."""
    loop = GLib.MainLoop()
    wrong = []
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message::eos", lambda *_: loop.quit())
    bus.connect(
        "message::error", lambda _, m: (wrong.append(m.parse_error()[0].message), loop.quit())
    )
    GLib.timeout_add(50, lambda: not done() or loop.quit())
    GLib.timeout_add_seconds(60, loop.quit)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    Gst.init(None)
    if sys.argv[1] == "whep":
        _, _, url, seconds, codec, box = sys.argv
        result = watch(url, float(seconds), codec, [int(n) for n in box.split(",")])
    else:
        result = send(*sys.argv[2:])
    print(json.dumps(result))
