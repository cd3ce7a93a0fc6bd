"""A pull as a command carries it out: with a bar, hints for what went wrong, and a trial run of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.hub import CATALOGUE, DownloadError, PullRecord, PullRequest, pull
from models.hub.bar import DownloadBar
from models.hub.pull import work_folder
from models.inference import ModelError, ModelInvalid

from .access import CommandError, Json
from .model_shelf import Model, advice, next_step
from .model_trial import try_out
from .output import print_error


@dataclass(frozen=True)
class PullReport:
    """What a pull came to: the model, whether it is new, what the archive held besides, and what to do next."""

    model: Model
    record: PullRecord
    is_new: bool
    left_out: tuple[str, ...]
    next_step: str
    notes: tuple[str, ...]

    def to_json(self) -> Json:
        """Describe it for machines."""
        return {
            "name": self.record.name,
            "kind": self.record.kind,
            "folder": str(self.model.folder),
            "is_new": self.is_new,
            "source": self.record.source,
            "archive_sha256": self.record.archive.sha256,
            "size_bytes": self.record.size_bytes,
            "left_out": list(self.left_out),
            "next_step": self.next_step,
            "notes": list(self.notes),
        }


def carry_out(request: PullRequest, *, force: bool, verify: bool, quiet: bool) -> PullReport:
    """Pull a model.

    Args:
        request: what to pull.
        force: replace an earlier pull.
        verify: run the model on a picture before it counts.
        quiet: show no bar.

    Raises:
        CommandError: it cannot be had or kept; the text says what to do.
        HubError: see ``models.hub.pull``.
        ModelError: it cannot be loaded; it was not kept.
    """
    if isinstance(request.source, str) and request.source.lower().startswith("http:") and request.sha256 is None:
        print_error("http does not protect the archive on its way: prefer https, or demand a checksum with --sha256")
    bar = DownloadBar(request.name, quiet=quiet)
    check: Callable[[Path], object] | None = (lambda folder: _try_out(request, folder)) if verify else None
    try:
        pulled = pull(request, force=force, verify=check, progress=bar)
    except DownloadError as error:
        raise CommandError(f"{error}; {_without_network(request)}") from error
    except OSError as error:
        raise CommandError(
            f"{request.folder} cannot be made: {error}; what was downloaded stays in {work_folder(request.folder)}, "
            "and another try goes on from there"
        ) from error
    finally:
        bar.stop()
    model = Model(
        request.name,
        request.kind,
        "pulled",
        request.folder,
        pulled.record.size_bytes,
        CATALOGUE.get(request.name),
        pulled.record,
    )
    return PullReport(model, pulled.record, pulled.is_new, pulled.left_out, next_step(model), advice(model))


def _without_network(request: PullRequest) -> str:
    named = f"{request.name} --from FILE" if request.name in CATALOGUE else f"FILE --name {request.name}"
    return f"without a network, copy the archive to this machine and name it: shitu models pull {named}"


def _try_out(request: PullRequest, folder: Path) -> None:
    """See that the service can use what came.

    Raises:
        ModelInvalid: it cannot; the text says what to do.
    """
    try:
        try_out(folder, request.kind)
    except ModelError as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), request.name)
        other = "detector" if request.kind == "hasher" else "hasher"
        kind = "" if request.name in CATALOGUE else f"--kind {other} if it is one; "
        raise ModelInvalid(
            f"the service cannot use {request.name} as a {request.kind}: {reason}. Nothing was changed, and what came "
            f"is kept for another try ({kind}--no-verify skips this check, --force fetches it anew)"
        ) from error
