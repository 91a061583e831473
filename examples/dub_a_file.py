"""Make a video of a target from a sound file: python dub_a_file.py ME.target SPEECH.wav OUT.mp4"""

import sys

from lipstream.streaming.files.dub import dub

if len(sys.argv) != 4:
    sys.exit(__doc__)
target, speech, out = sys.argv[1:]
report = dub(target, speech, out)
print(f"{report['frames']} frames at {report['realtime_factor']} times real time")
