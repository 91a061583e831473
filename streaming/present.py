"""A presenter: microphone in, window or virtual camera out, the delayed voice to a loudspeaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lipstream.streaming.devices.sound_card import SoundCard
from lipstream.streaming.devices.video_outputs import VideoOutput, Window
from lipstream.streaming.marking.marker import Marking
from lipstream.streaming.session.gc_policy import freeze
from lipstream.streaming.session.live_engine import LiveEngine, warm_up
from lipstream.streaming.session.runner import RunnerOptions, SessionRunner
from lipstream.streaming.session.subscription import TimedSound
from lipstream.streaming.shutdown import cancelled_by_sigterm


@dataclass(frozen=True, slots=True)
class PresentOptions:
    """Devices, and for how long."""

    microphone: str = "default"
    loudspeaker: str | None = None  # None: the voice is not played here
    seconds: float | None = None  # None: until the window is closed, or Ctrl-C
    notify: Callable[[str], None] = print
    marking: Marking = field(default_factory=Marking)


def present(
    engine: LiveEngine, outputs: Sequence[VideoOutput], options: PresentOptions
) -> dict[str, Any]:
    """Run until the time is over, a window is closed or Ctrl-C.

    Args:
        engine: shared; it is warmed up first.
        outputs: each gets every frame; they are not closed.
        options: see there.

    Returns:
        a report: frames, fps, delay_ms (voice to picture), late_frames, dropped_frames,
        input, output (names of devices), input_ppm, output_ppm (clocks against ours),
        sound_behind_ms, sound_lost (times), sound_dropped_ms (of the microphone, because this
        machine was too slow), interruptions, seconds.

    Raises:
        SoundError, UsageError: the devices that were asked for cannot be had.
    """
    warm_up(engine)
    freeze()
    runner = SessionRunner(engine, RunnerOptions(marking=options.marking))
    card = SoundCard(runner, options.microphone, options.loudspeaker, options.notify)
    try:
        runner.start()
        return asyncio.run(_show(runner, card, outputs, options))
    finally:
        card.close()
        runner.close()


async def _show(
    runner: SessionRunner, card: SoundCard, outputs: Sequence[VideoOutput], options: PresentOptions
) -> dict[str, Any]:
    def play(item: TimedSound) -> None:
        if card.playback is not None:
            card.playback.push_audio(item)

    windows = [output for output in outputs if isinstance(output, Window)]
    subscription = runner.subscribe(sound=play)
    now = runner.clock.now
    began_s = first_s = last_s = now()
    shown = 0
    try:
        with cancelled_by_sigterm():
            async for item in subscription:
                # The voice needs its time in the card's buffer; the picture waits for it.
                await asyncio.sleep(max(0.0, item.release_s + card.hold_s - now()))
                for output in outputs:
                    output.show(item.frame)
                last_s = now()
                first_s = last_s if not shown else first_s
                shown += 1
                if any(not _obey(window, runner, card) for window in windows):
                    break
                if options.seconds is not None and now() - began_s >= options.seconds:
                    break
    except asyncio.CancelledError:  # Ctrl-C or SIGTERM: the end that was asked for
        pass
    finally:
        subscription.close()
    if runner.error is not None:
        raise RuntimeError(runner.error)
    counters, playback = runner.counters, card.playback
    lasted_s = last_s - first_s
    return {
        "seconds": round(now() - began_s, 3),
        "frames": shown,
        "fps": round((shown - 1) / lasted_s, 3) if lasted_s > 0 else 0.0,
        "delay_ms": round(runner.delay_samples / 16 + 1000 * card.hold_s, 1),
        "late_frames": counters.late_frames,
        "dropped_frames": counters.dropped_frames,
        "interruptions": counters.interruptions,
        "input": card.names.get("input"),
        "output": card.names.get("output"),
        "input_ppm": round(counters.source_ppm, 1),
        "output_ppm": round(-playback.ppm, 1) if playback is not None else None,
        "sound_behind_ms": round(1000 * playback.behind_s, 2) if playback is not None else None,
        "sound_lost": card.lost,
        "sound_dropped_ms": round(card.dropped_ms, 1),
        "marks": runner.marker.as_json(),
    }


def _obey(window: Window, runner: SessionRunner, card: SoundCard) -> bool:
    """Do what the user asked for at a window; False when that is to quit."""
    for command in window.commands():
        if command == "quit":
            return False
        if command == "interrupt":
            runner.interrupt()
        elif command == "mute":
            card.muted = not card.muted
            window.title("lipstream (synthetic picture)" + (" — muted" if card.muted else ""))
    return True
