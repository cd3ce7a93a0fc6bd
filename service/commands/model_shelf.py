"""Which models there are: bundled with the package, published for pulling, and pulled into the cache."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.hub import CATALOGUE, Kind, PublishedModel, PullRecord, RecordInvalid, UnknownModel, user_cache
from models.hub.record import differences
from models.inference import STARTER_DETECTOR, STARTER_HASHER, Manifest, ModelFiles

from .access import CommandError, Json

State = Literal["bundled", "pulled", "damaged", "not pulled"]

BUNDLED: dict[str, tuple[Kind, Path]] = {
    "starter-hasher": ("hasher", STARTER_HASHER),
    "starter-detector": ("detector", STARTER_DETECTOR),
}
"""Kind and folder of the models that come with the package."""


@dataclass(frozen=True)
class Model:
    """A model that the service can use, or could after a pull.

    Attributes:
        name: what the commands call it.
        kind: what the service uses it as.
        state: whether it is here.
        folder: of its files, also where it would be pulled to.
        size_bytes: of its files; None where that is not known before a pull.
        published: its entry in the catalogue, if it has one.
        record: of its pull, if it was pulled.
        problems: what is wrong with its files, a line each.
    """

    name: str
    kind: Kind
    state: State
    folder: Path
    size_bytes: int | None = None
    published: PublishedModel | None = None
    record: PullRecord | None = None
    problems: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Describe it for machines, in a line of a list."""
        return {
            "name": self.name,
            "kind": self.kind,
            "state": self.state,
            "folder": str(self.folder),
            "size_bytes": self.size_bytes,
            "source": self.source,
            "problems": list(self.problems),
        }

    @property
    def size(self) -> str:
        """The size for people."""
        return "not known" if self.size_bytes is None else f"{self.size_bytes / 1e6:.1f} MB"

    @property
    def source(self) -> str | None:
        """Where it came from, or would come from."""
        if self.record is not None:
            return self.record.source
        return None if self.published is None else self.published.url


class Shelf:
    """The models of this machine, and those that could be."""

    def __init__(self, cache: Path | None) -> None:
        """Look into a folder of pulled models; None takes the user's cache.

        Raises:
            CommandError: there is no home folder to have a cache in.
        """
        try:
            self.cache = (cache or user_cache("models")).absolute()
        except RuntimeError as error:
            raise CommandError("you have no home folder: name one for models with SHITU_MODEL_CACHE_DIR") from error

    def models(self, *, contents: bool = False) -> Iterator[Model]:
        """Give the bundled models, the published ones, and what else was pulled.

        Args:
            contents: whether to read every file that was pulled and compare its checksum.
        """
        for name, (kind, folder) in BUNDLED.items():
            if folder.is_dir():
                yield _bundled(name, kind, folder)
        for published in CATALOGUE.values():
            yield self._published(published, contents=contents)
        for folder in sorted(self.cache.iterdir()) if self.cache.is_dir() else ():
            if folder.name not in CATALOGUE and not folder.name.startswith(".") and folder.is_dir():
                yield from self._own(folder, contents=contents)

    def find(self, name: str) -> Model:
        """Give a model by its name.

        Raises:
            UnknownModel: there is none; the text says what is near.
        """
        models = {model.name: model for model in self.models()}
        if name not in models:
            raise unknown(name, list(models))
        return models[name]

    def folder(self, name: str) -> Path:
        """Where a model of this name is pulled to."""
        return self.cache / name

    def _published(self, model: PublishedModel, *, contents: bool) -> Model:
        folder = self.folder(model.name)
        if not folder.is_dir() or not any(folder.iterdir()):
            return Model(model.name, model.kind, "not pulled", folder, model.size_bytes, model)
        try:
            record = PullRecord.read(folder)
        except RecordInvalid as error:
            return Model(model.name, model.kind, "damaged", folder, None, model, None, (str(error),))
        return _pulled(record, folder, model, contents=contents)

    def _own(self, folder: Path, *, contents: bool) -> Iterator[Model]:
        try:
            yield _pulled(PullRecord.read(folder), folder, None, contents=contents)
        except RecordInvalid:
            return  # somebody else's folder


def unknown(name: str, known: list[str]) -> UnknownModel:
    """Make the error for a name that no model has."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return UnknownModel(f"no model is called {name}; {hint}")


def describe(model: Model) -> Json:
    """Write the card of a model: what it is, where it is from, what is checked, how it is used."""
    card: Json = {"name": model.name, "kind": model.kind}
    if model.published is not None:
        card |= _describe_published(model.published)
    elif model.state == "bundled":
        card |= _describe_bundled(model)
    card |= {"state": model.state, "folder": str(model.folder), "size": model.size}
    if model.record is not None:
        card |= {
            "source": model.record.source,
            "pulled_at": model.record.pulled_at,
            "archive_sha256": model.record.archive.sha256,
        }
    if model.problems:
        card["problems"] = "; ".join(model.problems)
    card["use"] = f"shitu models pull {model.name}" if model.state == "not pulled" else next_step(model)
    return card


def next_step(model: Model) -> str:
    """Give the command that serves with a model."""
    folder = shlex.quote(str(model.folder))
    if model.kind == "detector":
        return f"SHITU_DETECTOR_DIR={folder} shitu serve"
    radius = model.published.hamming_radius if model.published is not None else None
    chosen = f"SHITU_HAMMING_RADIUS={radius} " if radius is not None else ""
    return f"SHITU_HASHER_DIR={folder} {chosen}shitu serve"


def advice(model: Model) -> tuple[str, ...]:
    """Say what to know before a model is served, a sentence each."""
    published = model.published
    notes = list(published.notes) if published is not None else []
    if published is not None and published.kind == "hasher" and not published.is_binary:
        notes.insert(0, f"A float model: a code is the signs of its {published.features} features.")
    if model.kind == "hasher" and model.state != "bundled":
        notes.append("A gallery with codes of another model needs shitu gallery rehash.")
    return tuple(notes)


def _bundled(name: str, kind: Kind, folder: Path) -> Model:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Model(name, kind, "bundled", folder, size)


def _pulled(record: PullRecord, folder: Path, published: PublishedModel | None, *, contents: bool) -> Model:
    problems = record.compare(folder, contents=contents)
    if published is not None:  # a record can be written anew; what the catalogue knows cannot
        problems = problems or differences(folder, published.files, contents=contents)
    return Model(
        name=folder.name,
        kind=record.kind if published is None else published.kind,
        state="damaged" if problems else "pulled",
        folder=folder,
        size_bytes=record.size_bytes,
        published=published,
        record=record,
        problems=tuple(problems),
    )


def _describe_published(published: PublishedModel) -> Json:
    known = (
        "SHA-256 of the graph, exact length of the parameters" if published.files else "nothing before the first pull"
    )
    return {
        "title": published.title,
        "publisher": published.publisher,
        "licence": published.licence,
        "address": published.url,
        "archive_folder": published.folder,
        "input": f"{published.input_side} x {published.input_side} pixels",
        "output": "boxes" if published.features is None else f"{published.features} features",
        "hamming_radius": published.hamming_radius,
        "checked": known,
        "weights_to_train_on": published.weights_url,
    }


def _describe_bundled(model: Model) -> Json:
    manifest = Manifest.read(model.folder, model.kind)
    side = manifest.preprocessing.input_size or (0, 0)
    return {
        "title": manifest.name,
        "publisher": "this project",
        "licence": "Apache-2.0",
        "input": f"{side[0]} x {side[1]} pixels",
        "output": "boxes" if manifest.bits is None else f"{manifest.bits} bits",
        "hamming_radius": manifest.hamming_radius,
        "graph": ModelFiles.find(model.folder).graph.name,
        "card": str(model.folder / "README.md"),
    }
