"""A gallery as the commands see it: in a data folder that this process opens, or behind a running server.

Both speak in the JSON of the REST interface, so a command prints the same whichever it works on.

    CommandError            a command cannot go on; the text says what to do
    ├── ServerUnreachable   nothing answers at the address
    └── ServerRefusal       the server answered with a problem document (``status``, ``code``)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Json = dict[str, Any]
OnDuplicate = Literal["add", "return", "reject"]
Method = Literal["Flat", "IVF", "HNSW32", "auto"]


class CommandError(Exception):
    """A command cannot go on; the text says what to do."""


class ServerUnreachable(CommandError):
    """Nothing answers at the server's address."""


class ServerRefusal(CommandError):
    """The server answered with a problem.

    Attributes:
        status: of HTTP.
        code: the problem's stable code, such as ``item_not_found``; empty if it sent none.
    """

    def __init__(self, message: str, status: int, code: str = "") -> None:
        """Take what to show, and what to tell problems apart by."""
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Enrolment:
    """A picture that is to become an item.

    Attributes:
        picture: the bytes of its file.
        label: 1 to 512 characters.
        id: of the item; None lets the store make one.
        metadata: a JSON object.
        source: where the picture lies, for hashing it again; servers ignore it.
    """

    picture: bytes
    label: str
    id: str | None = None
    metadata: Json = field(default_factory=dict)
    source: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one enrolment: the stored item, or why it was refused.

    ``change`` is ``unchanged`` where the gallery already held exactly this.
    """

    item: Json | None = None
    problem: str | None = None
    change: Literal["added", "replaced", "unchanged"] = "added"


@dataclass(frozen=True)
class Query:
    """One search: exactly one of ``picture``, ``code`` (hexadecimal) and ``item_id``; None leaves the default."""

    picture: bytes | None = None
    code: str | None = None
    item_id: str | None = None
    hamming_radius: int | None = None
    top_k: int | None = None
    label: str | None = None
    detect: bool | None = None
    whole_image: bool | None = None
    nprobe: int | None = None
    ef_search: int | None = None


class GalleryAccess(Protocol):
    """The operations that commands need. Every method may raise CommandError or, on a data folder, the errors of
    ``index_store``, ``models.inference`` and ``service.errors``.
    """

    def prepare(self) -> None:
        """Make sure that pictures can be enrolled, before anything is read; a data folder becomes a gallery."""

    def search(self, query: Query) -> Json:
        """Answer as ``POST /search`` does."""

    def add(self, enrolment: Enrolment, on_duplicate: OnDuplicate = "add", *, detect: bool = False) -> Json:
        """Enrol one picture and return the item, as ``POST /gallery`` does."""

    def enrol(self, enrolments: Sequence[Enrolment], present: frozenset[str]) -> list[Outcome]:
        """Enrol whole pictures with ids; those whose id is in ``present`` replace their item."""

    def items(self, label: str | None = None) -> Iterator[Json]:
        """Walk over the items, ordered by id."""

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items by id and return how many there were."""

    def remove_label(self, label: str) -> int:
        """Remove all items with a label and return how many there were."""

    def info(self) -> Json:
        """Describe the index as ``GET /index`` does."""

    def rebuild(self, method: str | None, progress: Callable[[float], None]) -> Json:
        """Build the search index anew, wait for it and describe it; ``progress`` is told the done part."""

    def backup(self, target: Path | None, progress: Callable[[int, int | None], None]) -> Json:
        """Write a backup to a file (None: to standard output) and say what it holds."""

    def close(self) -> None:
        """Let go of the gallery."""
