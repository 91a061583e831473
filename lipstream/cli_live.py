"""The commands for live speech: `lipstream serve`, `present` and `publish`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipstream.cli_options import (
    Backend,
    Json,
    Label,
    NoWatermark,
    Profile,
    Renderer,
    TargetArgument,
    TargetOrNone,
    Verbose,
)
from lipstream.console import own_console
from lipstream.engine.errors import UsageError

if TYPE_CHECKING:
    from lipstream.console import Console
    from lipstream.streaming.devices.video_outputs import VideoOutput

_DEVICE = "number, name, part of a name, or default."

VideoPreset = Annotated[
    str, typer.Option(help="light, standard or sharp: bit rate and encoding time for each picture.")
]
Bitrate = Annotated[
    int | None, typer.Option(metavar="KBPS", help="Fixed video bit rate, in place of the preset's.")
]
IceServers = Annotated[
    list[str] | None,
    typer.Option(
        "--ice-server",
        metavar="URL[,USER,PASSWORD]",
        help="STUN or TURN server; repeatable. Also LIPSTREAM_ICE_SERVERS, a JSON list.",
    ),
]


def serve(
    targets: Annotated[
        str, typer.Option(help="A target, or a folder of targets named NAME.target; or a URL.")
    ] = ".",
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Default: 127.0.0.1; with --ray, each node's own address."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="LIPSTREAM_TOKEN",
            help="Secret that clients must send; required if other machines can reach the server.",
        ),
    ] = None,
    sessions: Annotated[
        int, typer.Option(help="Most conversations at once; with --ray, on one node.", min=1)
    ] = 4,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Worker processes that compute; 0: the server itself does. Default: one for each "
            "core, at most --sessions; 0 if there is one core or one session.",
            min=0,
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Path under which a proxy serves this server, such as /avatar."
        ),
    ] = "",
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a proxy whose X-Forwarded-* headers are used; repeatable.",
        ),
    ] = None,
    ice_server: IceServers = None,
    udp_ports: Annotated[
        str | None,
        typer.Option(metavar="LOW-HIGH", help="UDP ports for media, one for each connection."),
    ] = None,
    video_preset: VideoPreset = "standard",
    bitrate: Bitrate = None,
    tls: Annotated[
        str | None,
        typer.Option(
            metavar="CERT KEY",
            help="Serve https with this certificate and key, PEM; `--tls self-signed` makes them.",
        ),
    ] = None,
    tls_key: Annotated[str | None, typer.Argument(metavar="KEY", hidden=True)] = None,
    profile: Profile = "live",
    backend: Backend = "auto",
    renderer: Renderer = "auto",
    label: Label = "corner",
    no_watermark: NoWatermark = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Serve on all nodes of a Ray cluster, of which this machine is one: auto, or "
            "HOST:PORT of its head. Needs the extra ray.",
        ),
    ] = None,
    call_cpus: Annotated[
        float, typer.Option(metavar="CPUS", help="With --ray: CPUs reserved for a call.")
    ] = 1.0,
    call_gpus: Annotated[
        float, typer.Option(metavar="GPUS", help="With --ray: share of a GPU reserved for a call.")
    ] = 0.0,
    spares: Annotated[
        int,
        typer.Option(help="With --ray: processes on each node, ready for the next call.", min=1),
    ] = 1,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="With --ray: place no more calls on this node; return when its last has ended.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Serve live calls: a web page, WHIP, WHEP and a WebSocket."""
    with own_console(verbose) as console:
        if drain is not None:
            if ray is None:
                raise typer.BadParameter("--drain NODE needs --ray ADDRESS")
            from lipstream.streaming.cluster.serve import drain as run_drain

            return run_drain(ray, drain, console.note, verbose)

        from lipstream.streaming.marking.marker import Marking
        from lipstream.streaming.remote.locations import is_url
        from lipstream.streaming.remote.targets import local_targets
        from lipstream.streaming.server.app import ServerOptions
        from lipstream.streaming.server.app import serve as run_server
        from lipstream.streaming.server.proxies import ProxyOptions
        from lipstream.streaming.server.targets import EngineSetting
        from lipstream.streaming.server.tls import Tls
        from lipstream.streaming.webrtc.aioice_patches import PortRange
        from lipstream.streaming.webrtc.h264 import Encoding
        from lipstream.streaming.webrtc.ice_servers import all_servers
        from lipstream.streaming.workers.pool import processes_for

        servers = all_servers(ice_server or (), os.environ.get("LIPSTREAM_ICE_SERVERS"))
        ports = PortRange.parse(udp_ports) if udp_ports is not None else None
        encoding = Encoding(video_preset, 1000 * bitrate if bitrate is not None else None)
        if processes is None:
            processes = processes_for(sessions)
        proxies = ProxyOptions.parse(root_path, trusted_proxy or ())
        if ray is not None and host is None and token is None:
            raise UsageError(
                "--ray: other machines can reach the nodes, so it needs --token SECRET or "
                "LIPSTREAM_TOKEN"
            )
        if host is None:
            host = "127.0.0.1" if ray is None else "node"
        options = ServerOptions(
            host, port, token, sessions, processes, servers, ports, encoding, proxies,
            tls=Tls.parse(tls, tls_key), marking=Marking.parse(label, no_watermark),
        )  # fmt: skip
        setting = EngineSetting(profile, backend, renderer)
        if ray is None:
            return run_server(local_targets(targets), setting, options, console.note)

        from lipstream.streaming.cluster.serve import serve as run_cluster
        from lipstream.streaming.cluster.service import Service, Share

        folder = targets if is_url(targets) else str(Path(targets).resolve())
        level = "INFO" if verbose else "WARNING"
        share = Share(call_cpus, call_gpus)
        service = Service(folder, setting, options, share, spares, level)
        run_cluster(ray, service, console.note, verbose)


def present(
    target: TargetOrNone = None,
    microphone: Annotated[str, typer.Option("--input", help=f"Microphone: {_DEVICE}")] = "default",
    loudspeaker: Annotated[
        str | None,
        typer.Option("--output", help=f"Play the voice in sync with the picture: {_DEVICE}"),
    ] = None,
    camera: Annotated[
        bool, typer.Option("--camera", help="Show on a virtual camera; with --window, on both.")
    ] = False,
    camera_device: Annotated[
        str | None, typer.Option(help="Device of the virtual camera, such as /dev/video2.")
    ] = None,
    window: Annotated[
        bool, typer.Option("--window", help="Show in a window, the default without --camera.")
    ] = False,
    fullscreen: Annotated[bool, typer.Option("--fullscreen", help="Fill the screen.")] = False,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the sound devices and exit.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time, s.", min=0.1)] = None,
    profile: Profile = "live",
    backend: Backend = "auto",
    renderer: Renderer = "auto",
    label: Label = "corner",
    no_watermark: NoWatermark = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Speak as a target: microphone in, window or virtual camera out."""
    with own_console(verbose) as console, ExitStack() as stack:
        if list_devices:
            return _list(console, json)
        if target is None:
            raise UsageError("Missing argument 'TARGET'. (see: lipstream present --help)")

        from lipstream.engine.pipeline import Engine
        from lipstream.engine.speech.profiles import require_live
        from lipstream.engine.target.bundle import load_consented
        from lipstream.streaming.devices.video_outputs import Camera, Window
        from lipstream.streaming.marking.marker import Marking
        from lipstream.streaming.present import PresentOptions
        from lipstream.streaming.present import present as go
        from lipstream.streaming.remote.targets import local_target

        require_live(profile)
        marking = Marking.parse(label, no_watermark)
        folder = local_target(target)
        loaded = load_consented(folder)
        outputs: list[VideoOutput] = []
        size = (loaded.width, loaded.height)
        if camera or camera_device is not None:
            virtual = Camera(*size, float(loaded.fps), camera_device)
            stack.callback(virtual.close)
            outputs.append(virtual)
            console.note(f"on the camera {virtual.name!r}")
        if window or fullscreen or not outputs:
            shown = Window(f"{folder.stem} — synthetic picture", *size, fullscreen)
            stack.callback(shown.close)
            outputs.append(shown)
            console.note("Esc closes, F fills the screen, M mutes, space interrupts the speech")
        engine = Engine(loaded, profile, backend, "matched", renderer)
        options = PresentOptions(microphone, loudspeaker, seconds, console.note, marking)
        report = {
            "target": folder.stem,
            "profile": profile,
            "backend": engine.backend,
            **go(engine, outputs, options),
        }
        sentence = (
            f"{report['frames']} frames in {report['seconds']:.0f} s ({report['fps']:.2f} fps), "
            f"{report['delay_ms']:.0f} ms behind the voice"
        )
        console.result(report, json, sentence)


def publish(
    target: TargetArgument,
    whip: Annotated[str, typer.Option(metavar="URL", help="The WHIP endpoint of an SFU.")],
    token: Annotated[
        str | None,
        typer.Option(envvar="LIPSTREAM_WHIP_TOKEN", help="Bearer token of that endpoint."),
    ] = None,
    microphone: Annotated[
        str | None, typer.Option("--input", help=f"Speech from a microphone: {_DEVICE}")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option("--audio", help="Speech from a sound file, played once.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time, s.", min=0.1)] = None,
    ice_server: IceServers = None,
    video_preset: VideoPreset = "standard",
    bitrate: Bitrate = None,
    profile: Profile = "live",
    backend: Backend = "auto",
    renderer: Renderer = "auto",
    label: Label = "corner",
    no_watermark: NoWatermark = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Publish a target to an SFU (LiveKit, Janus, MediaMTX) by WHIP."""
    with own_console(verbose) as console:
        from lipstream.streaming.marking.marker import Marking
        from lipstream.streaming.publish import PublishOptions
        from lipstream.streaming.publish import publish as go
        from lipstream.streaming.remote.targets import local_target
        from lipstream.streaming.server.targets import EngineSetting
        from lipstream.streaming.webrtc.h264 import Encoding
        from lipstream.streaming.webrtc.ice_servers import all_servers

        options = PublishOptions(
            whip,
            token,
            microphone if audio is not None or microphone is not None else "default",
            audio,
            seconds,
            all_servers(ice_server or (), os.environ.get("LIPSTREAM_ICE_SERVERS")),
            Encoding(video_preset, 1000 * bitrate if bitrate is not None else None),
            console.note,
            Marking.parse(label, no_watermark),
        )
        folder = local_target(target)
        engine = EngineSetting(profile, backend, renderer).load(folder)
        report = {"target": folder.stem, "profile": profile, "backend": engine.backend}
        report |= go(engine, options)
        sentence = (
            f"{report['frames']} frames in {report['seconds']:.0f} s, {report['kbps']} kb/s, "
            f"{report['connections']} connections"
        )
        console.result(report, json, sentence)


def _list(console: Console, json: bool) -> None:
    from lipstream.streaming.devices.sound_card import devices

    listed = devices()
    lines = [
        f"{d.index:3}  {d.inputs:2} in {d.outputs:2} out  {d.rate_hz:6.0f} Hz  {d.name} ({d.api})"
        + (", default input" if d.default_input else "")
        + (", default output" if d.default_output else "")
        for d in listed
    ]
    text = "\n".join(lines) or "no sound device found"
    console.result({"devices": [asdict(device) for device in listed]}, json, text)
    return None
