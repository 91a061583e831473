"""Opens media files, with errors that say what is wrong with them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from lipstream.engine.errors import MediaError
from lipstream.engine.paths import open_with_libav, refuse_address, refuse_pipe


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Raise errors of FFmpeg and the file system as MediaError."""
    try:
        yield
    except FileNotFoundError:
        raise MediaError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise MediaError(f"{path}: is a folder; expected a video or a photo") from None
    except (av.error.FFmpegError, PermissionError) as error:
        if error.errno == errno.EACCES:  # EPERM says that the format cannot do something
            raise MediaError(f"{path}: may not be read; check its permissions") from None
        raise MediaError(
            f"{path}: is not a video or photo that can be read ({error.strerror or error}); "
            "it may be cut short, or of another kind than its name says"
        ) from None


def open_media(path: Path) -> av.container.InputContainer:
    """A local media file, opened for reading; raises MediaError."""
    if path.is_dir():
        raise MediaError(f"{path}: is a folder; expected a video or a photo")
    if not path.exists():
        refuse_address(path)
        raise MediaError(f"{path}: there is no such file")
    refuse_pipe(path)
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty")
    with media_errors(path):
        container = open_with_libav(path)
    if container.format.name == "tty":
        container.close()
        raise MediaError(f"{path}: is a text file, not a video or a photo")
    return container


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The largest video stream that is not cover art; raises MediaError."""
    # Cover art in a music file is a video stream too.
    streams = [
        s
        for s in container.streams.video
        if not s.disposition & av.stream.Disposition.attached_pic and s.codec_context is not None
    ]
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams}) or ["nothing"]
        container.close()
        raise MediaError(f"{path}: has no picture (found: {', '.join(kinds)}); expected a video")
    stream = max(streams, key=lambda s: s.width * s.height)
    stream.thread_type = "AUTO"
    return stream
