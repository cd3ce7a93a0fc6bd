"""Errors of fetching models.

::

    HubError
    ├── UnknownModel      nothing of this name is published
    ├── DownloadError     a file cannot be had
    ├── ArchiveInvalid    it is no archive, none that may be unpacked, or none of a model
    ├── ContentMismatch   what came is not what was asked for
    ├── TargetTaken       the folder to fill holds something else
    └── RecordInvalid     the record of an earlier pull cannot be read
"""


class HubError(Exception):
    """Base of everything ``models.hub`` raises on purpose; the text says what to do."""


class UnknownModel(HubError):
    """Nothing of this name is in the catalogue or was pulled."""


class DownloadError(HubError):
    """A file cannot be had; the text names the address."""


class ArchiveInvalid(HubError):
    """The file is no archive, breaks a limit, holds what no model needs to hold, or holds no model."""


class ContentMismatch(HubError):
    """A checksum or size differs from the one that is known or was demanded."""


class TargetTaken(HubError):
    """The folder to fill exists and is not the same pull; nothing in it was touched."""


class RecordInvalid(HubError):
    """``manifest.json`` is missing, torn or of a later version."""
