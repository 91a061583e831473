"""The lips without a picture, for an avatar of your own: python lips_to_avatar.py SPEECH.wav"""

import sys

import lipstream.engine.speech.encoder as encoder
from lipstream.engine.types import AudioChunk
from lipstream.streaming.files.audio_file import read_speech

voice = encoder.Encoder(look_ahead_ms=80)
steps, state = voice.step(voice.init(), AudioChunk(read_speech(sys.argv[1]), 0))
for step in steps + voice.flush(state):
    bar = "#" * round(100 * step.lips.opening)
    print(f"{step.sample / 16_000:6.2f} s  {bar}")
