"""``manifest.json``: what a pull brought, so that a later look can tell whether it is still there, and the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from .catalogue import Kind, KnownFile
from .errors import RecordInvalid

RECORD_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class PullRecord:
    """What was pulled.

    Attributes:
        name: of the model.
        kind: what the service uses it as.
        source: address without secrets, or path of the archive.
        pulled_at: time in UTC (RFC 3339).
        archive: length and SHA-256 of the archive.
        files: the same of every file that was kept, by name.
    """

    name: str
    kind: Kind
    source: str
    pulled_at: str
    archive: KnownFile
    files: Mapping[str, KnownFile]

    @property
    def size_bytes(self) -> int:
        """What the files take together."""
        return sum(known.size_bytes for known in self.files.values())

    @classmethod
    def read(cls, folder: Path) -> PullRecord:
        """Read the record of a model folder.

        Raises:
            RecordInvalid: there is none, or it cannot be understood.
        """
        path = folder / RECORD_NAME
        try:
            content = json.loads(path.read_text("utf-8"))
            if content.pop("format") != _FORMAT:
                raise RecordInvalid(f"{path} was written by a later version of this program")
            content["archive"] = KnownFile(**content["archive"])
            content["files"] = {str(name): KnownFile(**known) for name, known in content["files"].items()}
            record = cls(**content)
        except FileNotFoundError:
            raise RecordInvalid(f"{folder} has no {RECORD_NAME}: it does not come from a pull") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordInvalid(f"{path} is no record of a pull ({error})") from error
        if record.kind not in get_args(Kind) or any(Path(name).name != name for name in record.files):
            raise RecordInvalid(f"{path} is no record of a pull")
        return record

    def write(self, folder: Path) -> None:
        """Write it into a model folder."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)
        (folder / RECORD_NAME).write_text(text + "\n", "utf-8")

    def compare(self, folder: Path, *, contents: bool = True) -> list[str]:
        """Compare the files in a folder with the record, and say what differs; files besides count for nothing.

        Args:
            folder: the model folder.
            contents: whether to read the files; else their lengths decide.
        """
        return differences(folder, self.files, contents=contents)


def differences(folder: Path, known: Mapping[str, KnownFile], *, contents: bool = True) -> list[str]:
    """Say which files in a folder are not what is known of them, a line each."""
    found = []
    for name, expected in known.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (size := path.stat().st_size) != expected.size_bytes:
            found.append(f"{name} has {size:,} bytes, and {expected.size_bytes:,} are right")
        elif contents and expected.sha256 is not None and (actual := measure(path).sha256) != expected.sha256:
            found.append(f"{name} has the SHA-256 {actual}, and {expected.sha256} is right")
    return found


def measure(path: Path) -> KnownFile:
    """Read a file and give its length and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return KnownFile(size, digest.hexdigest())
