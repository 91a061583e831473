"""Lip motion without a picture, for an avatar of your own: python lips_to_avatar.py SPEECH.wav"""

import sys

from lipstream.engine.speech.encoder import Encoder
from lipstream.engine.types import AudioChunk
from lipstream.streaming.files.audio_file import read_speech

if len(sys.argv) != 2:
    sys.exit(__doc__)
encoder = Encoder(look_ahead_ms=80)
steps, state = encoder.step(encoder.init(), AudioChunk(read_speech(sys.argv[1]), 0))
for step in steps + encoder.flush(state):
    bar = "#" * round(100 * step.lips.opening)
    print(f"{step.sample / 16_000:6.2f} s  {bar}")
