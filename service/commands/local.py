"""A gallery in a data folder that this process opens, with the models loaded in it when a command needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from index_store import (
    Existing,
    FingerprintMismatch,
    GalleryNotFound,
    GalleryStore,
    InvalidItem,
    Item,
    ItemNotFound,
)
from models.inference import Detector, Hasher, Manifest
from service.enrolment import Draft, Enroller
from service.errors import PictureError
from service.images import PictureDecoder
from service.loading import choose_radius, load_detector, load_hasher, open_store
from service.pictures import KeptPictures
from service.recognizer import Query as Criteria
from service.recognizer import Recognizer
from service.settings import Settings
from service.timing import StageTimes
from service.vision import Candidate, DetectOptions, Vision

from .access import CommandError, Enrolment, Json, OnDuplicate, Outcome, Query
from .answers import index_json, item_json, search_json
from .build import Progress

_PAGE = 1000


class LocalGallery:
    """The gallery in ``settings.data_dir``; see ``GalleryAccess``.

    Opening it takes the folder's lock, and loading the models takes a second or two, so both wait until they are
    needed; listing and removing need no model.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is opened yet."""
        self._settings = settings
        self._open: GalleryStore | None = None

    @cached_property
    def hasher(self) -> Hasher:
        """The feature model of the settings."""
        return load_hasher(self._settings)

    @cached_property
    def vision(self) -> Vision:
        """Decoder and hasher, for whole pictures."""
        return self._vision(None)

    @cached_property
    def detecting_vision(self) -> Vision:
        """Decoder, hasher and, if the settings name one, the detector."""
        detector = load_detector(self._settings)
        return self.vision if detector is None else self._vision(detector)

    @property
    def store(self) -> GalleryStore:
        """The store, whatever model its codes are of.

        Raises:
            CommandError: the folder holds no gallery; :meth:`prepare` makes one.
            GalleryLocked, StorageUnavailable.
        """
        try:
            return self._open_existing()
        except GalleryNotFound as error:
            folder = self._settings.data_dir
            raise CommandError(
                f"{folder} holds no gallery: make one with `shitu gallery add` or `build`, or name another --data-dir"
            ) from error

    @property
    def pictures(self) -> KeptPictures:
        """The pictures that are kept beside the gallery."""
        store = self.store
        return KeptPictures(self._settings.data_dir / "images", store.has_source, store.check_room)

    def prepare(self) -> None:
        """Load the models and open the gallery, or make it if there is none.

        Raises:
            FingerprintMismatch: the gallery is of another model.
        """
        hasher = self.hasher
        try:
            store = self._open_existing()
        except GalleryNotFound:
            store = self._open = open_store(self._settings, hasher.bits, hasher.fingerprint)
        if (store.bits, store.fingerprint) != (hasher.bits, hasher.fingerprint):
            raise FingerprintMismatch(
                store.fingerprint, hasher.fingerprint, stored_bits=store.bits, given_bits=hasher.bits
            )

    def search(self, query: Query) -> Json:
        """Answer as ``POST /search`` does."""
        times = StageTimes()
        candidates: Sequence[Candidate | None] = [None]
        if query.picture is not None:
            self.store  # noqa: B018 (a folder without a gallery is told before the models load)
            self.prepare()
            vision = self.vision if query.detect is False else self.detecting_vision
            candidates, codes = vision.find(query.picture, self._detection(query.detect, query.whole_image), times)
        else:
            codes = self._code_of(query)
        settings = self._settings
        radius = query.hamming_radius
        criteria = Criteria(
            self._default_radius() if radius is None else radius,
            query.top_k or settings.top_k,
            query.label,
            nprobe=query.nprobe,
            ef_search=query.ef_search,
        )
        recognizer = Recognizer(self.store, settings.rec_nms_threshold)
        recognition = recognizer.recognize(candidates, codes, criteria, times)
        return search_json(recognition, self.store, times)

    def add(self, enrolment: Enrolment, on_duplicate: OnDuplicate = "add", *, detect: bool = False) -> Json:
        """Enrol one picture, kept beside the gallery if the settings say so."""
        self.prepare()
        times = StageTimes()
        keep = self._settings.keep_images
        vision = self.detecting_vision if detect else self.vision
        (coded,) = vision.code([enrolment.picture], self._detection(detect), times, keep=keep)
        if isinstance(coded, PictureError):
            raise coded
        draft = Draft(enrolment.id, enrolment.label, enrolment.metadata, coded.code, coded.hashed if keep else None)
        (stored,) = Enroller(self.store, self.pictures).add([draft], on_duplicate, times)
        if isinstance(stored, Exception):
            raise stored
        return item_json(stored.item if isinstance(stored, Existing) else stored)

    def enrol(self, enrolments: Sequence[Enrolment], present: frozenset[str]) -> list[Outcome]:
        """Enrol whole pictures, new ones as one transaction; an item that would not change is left alone."""
        self.prepare()
        pictures = [enrolment.picture for enrolment in enrolments]
        coded = self.vision.code(pictures, self._detection(False), StageTimes())
        outcomes: list[Outcome | None] = [None] * len(enrolments)
        added: list[tuple[int, Item]] = []
        for number, (enrolment, result) in enumerate(zip(enrolments, coded, strict=True)):
            if isinstance(result, PictureError):
                outcomes[number] = Outcome(problem=str(result))
                continue
            item = Item(enrolment.id, enrolment.label, result.code, enrolment.metadata, enrolment.source)
            if enrolment.id in present:
                outcomes[number] = self._replace(item)
            else:
                added.append((number, item))
        for (number, _), stored in zip(added, self.store.add_each([item for _, item in added]), strict=True):
            if isinstance(stored, Item):
                outcomes[number] = Outcome(item_json(stored))
            else:
                outcomes[number] = Outcome(problem=str(stored))
        return [outcome for outcome in outcomes if outcome is not None]

    def items(self, label: str | None = None) -> Iterator[Json]:
        """Walk over the items, ordered by id."""
        for item in self.stored_items(label):
            yield item_json(item)

    def stored_items(self, label: str | None = None) -> Iterator[Item]:
        """Walk over the items as they are stored, with their sources."""
        cursor: str | None = None
        while True:
            page = self.store.list(cursor, _PAGE, label)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def remove(self, ids: Sequence[str]) -> int:
        """Remove items and the pictures that were kept for them alone."""
        return Enroller(self.store, self.pictures).remove(ids)

    def remove_label(self, label: str) -> int:
        """Remove a label and the pictures that were kept for it alone."""
        return Enroller(self.store, self.pictures).remove_label(label)

    def info(self) -> Json:
        """Describe the index as ``GET /index`` does."""
        return index_json(self.store)

    def rebuild(self, method: str | None, progress: Callable[[float], None]) -> Json:
        """Build the index anew on all processors, and write it down."""
        self.store.rebuild(method, progress, self._settings.cpu_threads or len(os.sched_getaffinity(0)))
        self.store.snapshot()
        return self.info()

    def backup(self, target: Path | None, progress: Progress) -> Json:
        """Write a backup to a file or to standard output."""
        return asdict(self.store.backup(sys.stdout.buffer if target is None else target, progress))

    def close(self) -> None:
        """Close the store, which writes its snapshot and frees the folder."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _open_existing(self) -> GalleryStore:
        if self._open is None:
            self._open = open_store(self._settings)
        return self._open

    def _vision(self, detector: Detector | None) -> Vision:
        settings = self._settings
        decoder = PictureDecoder(settings.max_upload_bytes, settings.max_pixels)
        return Vision(decoder, self.hasher, detector, batch_size=settings.hash_batch_size)

    def _replace(self, item: Item) -> Outcome:
        old = self.store.get(item.id or "")
        if old is not None and (old.label, old.code, old.metadata, old.source) == (
            *(item.label, item.code, item.metadata, item.source),
        ):
            return Outcome(item_json(old), change="unchanged")
        try:
            with self.pictures.change() as change:
                change.touch(old.source if old is not None else None)
                return Outcome(item_json(self.store.replace(item)), change="replaced")
        except (InvalidItem, ItemNotFound) as error:
            return Outcome(problem=str(error))

    def _code_of(self, query: Query) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        if query.item_id is not None:
            item = self.store.get(query.item_id)
            if item is None:
                raise ItemNotFound(query.item_id)
            code = item.code
        else:
            code = _from_hex(query.code or "", self.store.bits)
        return np.frombuffer(code, np.uint8).reshape(1, -1)

    def _default_radius(self) -> int:
        # A code needs no model to be searched, only what the model folder says about itself.
        recommended = Manifest.read(self._settings.hasher_dir, "hasher").hamming_radius
        return choose_radius(self._settings, self.store.bits, recommended)

    def _detection(self, detect: bool | None, whole_image: bool | None = None) -> DetectOptions:
        settings = self._settings
        whole = settings.whole_image if whole_image is None else whole_image
        return DetectOptions(detect is not False, settings.det_threshold, settings.max_objects, whole)


def _from_hex(text: str, bits: int) -> bytes:
    try:
        code = bytes.fromhex(text)
    except ValueError:
        code = b""
    if len(code) * 8 != bits:
        raise CommandError(f"a code of this gallery has {bits // 4} hexadecimal digits ({bits} bits)")
    return code
