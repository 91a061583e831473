"""The errors that kernels raise; `lipstream.engine.errors` draws the whole hierarchy."""


class LipstreamError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(LipstreamError):
    """An argument or setting that cannot work."""


class BackendUnavailable(LipstreamError):
    """A backend asked for by name that cannot run here; says why and what to install."""
