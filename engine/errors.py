"""Every error lipstream raises on purpose.

    LipstreamError
    ├── UsageError             an argument or setting that cannot work
    │   ├── UnknownTarget      no target of this name
    │   └── SessionConflict    a session of this name speaks as another target
    ├── MediaError             a file or stream that cannot be read or written
    ├── CalibrationError       footage that cannot become a target
    ├── TargetError            a bundle that is damaged, foreign or hostile
    │   └── ConsentMissing     a bundle without the consent of the person shown
    ├── AssetError             a model file that is missing or not the pinned one
    ├── BackendUnavailable     a named backend that this machine does not have
    ├── FrameLost              one frame has no picture; the conversation goes on
    ├── SoundError             the machine's sound cannot be used
    ├── VideoOutputError       no window or virtual camera can be had
    ├── NoFreePort             every UDP port of a range is taken
    ├── ServerBusy             as many conversations as a server takes are going on
    ├── WorkerLost             a worker process ended, and its conversations with it
    ├── PublishError           a WHIP server does not take our stream
    └── HttpError              a request that is answered with an error status and a reason

Each message says what was got, what was expected and what to do about it, in one line. The
command line prints it and exits with code 2.
"""

from lipstream.kernels.errors import BackendUnavailable, LipstreamError, UsageError

__all__ = [
    "AssetError",
    "BackendUnavailable",
    "CalibrationError",
    "ConsentMissing",
    "FrameLost",
    "HttpError",
    "LipstreamError",
    "MediaError",
    "NoFreePort",
    "PublishError",
    "ServerBusy",
    "SessionConflict",
    "SoundError",
    "TargetError",
    "UnknownTarget",
    "UsageError",
    "VideoOutputError",
    "WorkerLost",
]


class UnknownTarget(UsageError):
    """There is no target of this name."""


class SessionConflict(UsageError):
    """A session of this name is going on, and it speaks as another target."""


class MediaError(LipstreamError):
    """A media file or stream that cannot be read or written."""


class CalibrationError(LipstreamError):
    """Footage that cannot become a target."""


class TargetError(LipstreamError):
    """A target bundle that is damaged, foreign or hostile; names the file and the field."""


class ConsentMissing(TargetError):
    """A target bundle that does not record the consent of the person shown."""


class AssetError(LipstreamError):
    """A model file that is missing, or is not the one that is pinned."""


class FrameLost(LipstreamError):
    """One frame could not be painted; the one before it is shown again."""


class SoundError(LipstreamError):
    """The machine's sound cannot be used."""


class VideoOutputError(LipstreamError):
    """No window or virtual camera can be had."""


class NoFreePort(LipstreamError):
    """Every UDP port of the range is taken."""


class ServerBusy(LipstreamError):
    """As many conversations as this server takes are going on."""


class WorkerLost(LipstreamError):
    """A worker process ended, and its conversations with it."""


class PublishError(LipstreamError):
    """The WHIP server does not take our stream."""


class HttpError(LipstreamError):
    """A request that is answered with an error status and a reason, in JSON."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
