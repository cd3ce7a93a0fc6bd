"""Which errors are the user's to mend: they become one line and an exit code; anything else is a bug and shows."""

from __future__ import annotations

from service.settings import SettingsError

from .access import CommandError
from .listing import ListingError

FAILED = 1
USAGE = 2


def explain(error: Exception) -> tuple[str, int] | None:
    """Give the text and the exit code for an error that was raised on purpose; None for any other."""
    from index_store import FingerprintMismatch, GalleryError, GalleryLocked
    from models.hub.errors import HubError
    from models.inference import ModelError
    from service.errors import ServiceError

    if isinstance(error, SettingsError):
        return str(error), USAGE
    if isinstance(error, GalleryLocked):
        hint = "" if "--server" in str(error) else "; if that is a running service, use --server URL"
        return f"{error}{hint}", FAILED
    if isinstance(error, FingerprintMismatch):
        remedy = "`shitu gallery rehash`"
        if error.adoptable:
            remedy = f"`shitu serve --adopt` if the given model made the codes, else {remedy}"
        return f"{error} ({remedy})", FAILED
    if isinstance(error, CommandError | ListingError | GalleryError | HubError | ModelError | ServiceError):
        return str(error), FAILED
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return str(error), FAILED
    return None
