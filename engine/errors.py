"""Every error lipstream raises on purpose.

    LipstreamError
    ├── UsageError             an argument or setting that cannot work
    ├── MediaError             a file or stream that cannot be read or written
    ├── CalibrationError       footage that cannot become a target
    ├── TargetError            a bundle that is damaged, foreign or hostile
    ├── AssetError             a model file that is missing or not the pinned one
    └── BackendUnavailable     a named backend that this machine does not have

Each message says what was got, what was expected and what to do about it, in one line. The
command line prints it and exits with code 2.
"""


class LipstreamError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(LipstreamError):
    """An argument or setting that cannot work."""


class MediaError(LipstreamError):
    """A media file or stream that cannot be read or written."""


class CalibrationError(LipstreamError):
    """Footage that cannot become a target."""


class TargetError(LipstreamError):
    """A target bundle that is damaged, foreign or hostile; names the file and the field."""


class AssetError(LipstreamError):
    """A model file that is missing, or is not the one that is pinned."""


class BackendUnavailable(LipstreamError):
    """A backend asked for by name that cannot run here; says why and what to install."""
