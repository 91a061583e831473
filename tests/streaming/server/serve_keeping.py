"""`lipstream` that gives a lost client up after other than 30 s.

python -m tests.streaming.server.serve_keeping SECONDS serve …
"""

import sys

from lipstream.cli import main
from lipstream.streaming.server import rooms
from lipstream.streaming.webrtc import aioice_patches

if __name__ == "__main__":
    aioice_patches.CONSENT_EXPIRY_S = rooms.KEEP_S = float(sys.argv.pop(1))  # type: ignore[misc]
    main()
