"""The loop of an application: push sound as it arrives, show frames as they come out.

python live_loop.py ME.target SPEECH.wav
"""

import sys

import lipstream
from lipstream.streaming.files.audio_file import read_speech

PACKET_SAMPLES = 320  # 20 ms at 16 kHz; any length works

if len(sys.argv) != 3:
    sys.exit(__doc__)
target, speech = sys.argv[1:]
engine = lipstream.Engine(lipstream.load_target(target), profile="low")
session = engine.session()
sound = read_speech(speech)


def show(frame: lipstream.VideoFrame) -> None:
    """frame.i420 or frame.image is the picture, frame.audio the sound of the same time."""


shown = 0
for start in range(0, sound.size, PACKET_SAMPLES):
    for frame in session.push(sound[start : start + PACKET_SAMPLES]):
        show(frame)
        shown += 1
for frame in session.flush():
    show(frame)
    shown += 1
print(f"{shown} frames, each {engine.delay_ms:.0f} ms behind its sound")
