"""Models that others publish: what there is, fetching, unpacking and checking it. No Paddle, no HTTP service.

Exports are what the service loads (``models.inference``); the same downloads bring the weights that a training starts
from (``models.training.pretrained``).
"""

from .catalogue import CATALOGUE, Kind, KnownFile, PublishedModel
from .errors import (
    ArchiveInvalid,
    ContentMismatch,
    DownloadError,
    HubError,
    RecordInvalid,
    TargetTaken,
    UnknownModel,
)
from .folders import user_cache
from .pull import Pulled, PullRequest, pull
from .record import PullRecord

__all__ = [
    "CATALOGUE",
    "ArchiveInvalid",
    "ContentMismatch",
    "DownloadError",
    "HubError",
    "Kind",
    "KnownFile",
    "PublishedModel",
    "PullRecord",
    "PullRequest",
    "Pulled",
    "RecordInvalid",
    "TargetTaken",
    "UnknownModel",
    "pull",
    "user_cache",
]
