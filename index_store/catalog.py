"""The catalog: every item with its code in SQLite, the truth that the index is derived from.

Rows are numbered from 1 and no number is used twice, so a row names one code for ever (until a recoding,
which changes all of them): an index entry whose row is gone is stale. Rows removed are logged until a
snapshot has seen them. There is one writer at a time, under the store's own lock, and any number of readers;
WAL lets them go on beside the writer.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from index_store.base import (
    Codes,
    FingerprintMismatch,
    GalleryClosed,
    GalleryNotFound,
    InvalidItem,
    Item,
    Method,
    MissingCodes,
    StorageUnavailable,
    UnknownSchema,
)
from index_store.faults import storage_faults
from index_store.hamming import Rows
from index_store.ids import first_number, format_id, format_ids, parse_id
from index_store.validation import decode_metadata

SCHEMA = 2
FILE_NAME = "catalog.sqlite3"
_STAGE_NAME = "recode.staging"
_MAX_VARIABLES = 512
_COLUMNS = "id, label, code, metadata, source, created_at"
_TABLES = """
CREATE TABLE gallery (
    one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, bits INTEGER NOT NULL, fingerprint TEXT,
    last_row INTEGER NOT NULL, last_removal INTEGER NOT NULL, last_id INTEGER NOT NULL,
    method TEXT NOT NULL DEFAULT 'Flat'
);
CREATE TABLE item (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, code BLOB NOT NULL, metadata TEXT,
    source TEXT, created_at INTEGER NOT NULL
);
CREATE INDEX item_label ON item (label, id);
CREATE INDEX item_source ON item (source) WHERE source IS NOT NULL;
CREATE TABLE removed (change INTEGER PRIMARY KEY, row INTEGER NOT NULL);
CREATE TABLE snapshot (
    token TEXT PRIMARY KEY, last_row INTEGER NOT NULL, last_removal INTEGER NOT NULL
) WITHOUT ROWID;
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """The gallery's own record, as last committed, and how many items there are."""

    bits: int
    fingerprint: str | None
    method: Method
    last_row: int
    last_removal: int
    last_id: int
    items: int

    @property
    def position(self) -> Position:
        """How far the gallery's history has come."""
        return Position(self.last_row, self.last_removal)


@dataclass(frozen=True, slots=True)
class Position:
    """A point in the gallery's history: the last row given out and the last removal logged."""

    last_row: int
    last_removal: int


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item that passed every check; ``metadata`` is JSON text, ``created_ms`` is since 1970."""

    id: str
    label: str
    code: bytes
    metadata: str | None
    source: str | None
    created_ms: int


class Catalog:
    """The SQLite file of one gallery.

    Every method raises StorageUnavailable or DiskFull when SQLite fails. Methods that write, and
    ``transaction``, are for one thread at a time.
    """

    def __init__(self, folder: Path, bits: int | None, fingerprint: str | None, *, adopt: bool = False) -> None:
        """Open the catalog in ``folder``, or make one for codes of ``bits`` bits.

        With ``adopt``, one of the same bits whose model is unknown takes ``fingerprint`` as its own.
        Raises GalleryNotFound if there is none and ``bits`` is None, FingerprintMismatch, UnknownSchema.
        """
        self._folder = folder
        with storage_faults(folder):
            self._db = self._connect(cache_kib=8192)
            try:
                self.state = self._open(bits, fingerprint, adopt)
            except BaseException:
                self._db.close()
                raise
        self._readers = ReaderPool(lambda: self._connect(cache_kib=1024))

    def _connect(self, cache_kib: int) -> sqlite3.Connection:
        path = self._folder / FILE_NAME
        with storage_faults(self._folder):
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            try:
                db.execute(f"PRAGMA cache_size = -{cache_kib}")
                db.execute("PRAGMA synchronous = FULL")
            except BaseException:
                db.close()
                raise
        return db

    def _open(self, bits: int | None, fingerprint: str | None, adopt: bool) -> State:
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageUnavailable(f"SQLite cannot keep a write-ahead log in {self._folder}: use a local disk")
        # A longer log than SQLite's default: bulk enrolment rewrites fewer pages twice. At most 32 MB.
        self._db.execute("PRAGMA wal_autocheckpoint = 8000")
        self._db.execute("PRAGMA journal_size_limit = 67108864")  # what one huge change needed, it gives back
        (self._folder / _STAGE_NAME).unlink(missing_ok=True)
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'gallery'").fetchone():
            if bits is None:
                raise GalleryNotFound(f"{self._folder} holds no gallery: give the bits of its codes to make one")
            self._create(bits, fingerprint)
        self._upgrade()
        state = self._read_state(self._db)
        if (bits is not None and bits != state.bits) or fingerprint not in (None, state.fingerprint):
            mismatch = FingerprintMismatch(
                state.fingerprint, fingerprint, stored_bits=state.bits, given_bits=bits or state.bits
            )
            if not (adopt and mismatch.adoptable):
                raise mismatch
            self._db.execute("UPDATE gallery SET fingerprint = ?", (fingerprint,))  # its own transaction
            logger.info("the codes in %s are taken to be of model %s from now on", self._folder, fingerprint)
            state = self._read_state(self._db)
        return state

    def _create(self, bits: int, fingerprint: str | None) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO gallery VALUES (1, ?, ?, ?, 0, 0, 0, 'Flat')", (SCHEMA, bits, fingerprint))
            self._db.execute("COMMIT")
        except BaseException:
            _roll_back(self._db)
            raise

    def _upgrade(self) -> None:
        """Bring a catalog of the first schema, which knew one index method, to this one."""
        if self._db.execute("SELECT schema FROM gallery").fetchone() != (1,):
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("ALTER TABLE gallery ADD COLUMN method TEXT NOT NULL DEFAULT 'Flat'")
            self._db.execute("UPDATE gallery SET schema = ?", (SCHEMA,))
            self._db.execute("COMMIT")
        except BaseException:
            _roll_back(self._db)
            raise

    def _read_state(self, db: sqlite3.Connection) -> State:
        (schema,) = db.execute("SELECT schema FROM gallery").fetchone()
        if schema != SCHEMA:
            raise UnknownSchema(
                f"the catalog in {self._folder} has schema {schema}; this version knows schema {SCHEMA}: "
                "use the version of shitu-hash that wrote it"
            )
        columns = "bits, fingerprint, method, last_row, last_removal, last_id, (SELECT count(*) FROM item)"
        return State(*db.execute(f"SELECT {columns} FROM gallery").fetchone())

    def settle(self) -> None:
        """Bring what the write-ahead log holds into the catalog's own file, durably."""
        with storage_faults(self._folder):
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageUnavailable(f"the catalog in {self._folder} is in use by another process")

    def close(self) -> None:
        """Close every connection, once those in use have been given back."""
        self._readers.close()
        with storage_faults(self._folder):
            self._db.close()

    # Reading, from any thread

    def get(self, item_id: str) -> Item | None:
        """Return the item with this id."""
        rows = self._read(f"SELECT {_COLUMNS} FROM item WHERE id = ?", (item_id,))
        return _item(rows[0]) if rows else None

    def page(self, after: str, limit: int, label: str | None) -> list[Item]:
        """Return at most ``limit`` items with ids above ``after``, by id."""
        if label is None:
            sql = f"SELECT {_COLUMNS} FROM item WHERE id > ? ORDER BY id LIMIT ?"
            return [_item(row) for row in self._read(sql, (after, limit))]
        sql = f"SELECT {_COLUMNS} FROM item WHERE label = ? AND id > ? ORDER BY id LIMIT ?"
        return [_item(row) for row in self._read(sql, (label, after, limit))]

    def in_order(self, row: int, limit: int) -> list[tuple[int, Item]]:
        """Return at most ``limit`` (row, item) with rows above ``row``, by row."""
        found = self._read(f"SELECT row, {_COLUMNS} FROM item WHERE row > ? ORDER BY row LIMIT ?", (row, limit))
        return [(each[0], _item(each[1:])) for each in found]

    def has_source(self, source: str) -> bool:
        """Say whether any item has this source."""
        return bool(self._read("SELECT 1 FROM item WHERE source = ? LIMIT 1", (source,)))

    def sources(self, after: str, limit: int, label: str | None) -> list[tuple[str, str]]:
        """Return at most ``limit`` (id, source) with ids above ``after``, by id."""
        wanted = "id > ? AND source IS NOT NULL ORDER BY id LIMIT ?"
        if label is None:
            return self._read(f"SELECT id, source FROM item WHERE {wanted}", (after, limit))
        return self._read(f"SELECT id, source FROM item WHERE label = ? AND {wanted}", (label, after, limit))

    def describe(self, rows: Sequence[int]) -> dict[int, tuple[str, str, str | None]]:
        """Return {row: (id, label, metadata text)} of those rows that are there."""
        found = self._read_in("SELECT row, id, label, metadata FROM item WHERE row IN", rows)
        return {row: (item_id, label, metadata) for row, item_id, label, metadata in found}

    def rows_of_ids(self, ids: Sequence[str]) -> dict[str, int]:
        """Return {id: row} of those ids that are there."""
        return dict(self._read_in("SELECT id, row FROM item WHERE id IN", ids))

    def rows_of_label(self, label: str) -> Rows:
        """Return the rows of every item with this label, int64 (n,)."""
        with self._readers.borrow() as db, storage_faults(self._folder):
            found = db.execute("SELECT row FROM item WHERE label = ?", (label,))
            return np.fromiter((row for (row,) in found), dtype=np.int64)

    def codes_after(self, row: int, limit: int) -> tuple[Rows, Codes]:
        """Return at most ``limit`` pairs with rows above ``row``, by row: int64 (n,), uint8 (n, bits / 8)."""
        found = self._read("SELECT row, code FROM item WHERE row > ? ORDER BY row LIMIT ?", (row, limit))
        rows = np.fromiter((row for row, _ in found), dtype=np.int64, count=len(found))
        codes = np.frombuffer(b"".join([code for _, code in found]), dtype=np.uint8)
        return rows, codes.reshape(len(found), -1 if found else self.state.bits // 8)

    def removals_after(self, change: int) -> Rows:
        """Return the rows removed after this change, int64 (n,)."""
        with self._readers.borrow() as db, storage_faults(self._folder):
            found = db.execute("SELECT row FROM removed WHERE change > ?", (change,))
            return np.fromiter((row for (row,) in found), dtype=np.int64)

    def snapshot_position(self, token: str) -> Position | None:
        """Return the position of the snapshot with this token; None if it is not of this history."""
        rows = self._read("SELECT last_row, last_removal FROM snapshot WHERE token = ?", (token,))
        return Position(*rows[0]) if rows else None

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """Read the catalog as it is at one moment, while others go on to change it.

        Meanwhile the write-ahead log cannot be emptied, so it grows by what is changed.
        """
        with self._readers.borrow() as db, storage_faults(self._folder):
            db.execute("BEGIN")
            try:
                yield Moment(db, self._read_state(db))
            finally:
                _roll_back(db)

    def _read(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._readers.borrow() as db, storage_faults(self._folder):
            return db.execute(sql, values).fetchall()

    def _read_in(self, sql: str, keys: Sequence[Any]) -> list[Any]:
        found = []
        with self._readers.borrow() as db, storage_faults(self._folder):
            for start in range(0, len(keys), _MAX_VARIABLES):
                part = list(keys[start : start + _MAX_VARIABLES])
                # Few distinct lengths, so that SQLite's statements are prepared once.
                part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
                found += db.execute(f"{sql} ({','.join('?' * len(part))})", part).fetchall()
        return found

    # Writing, by one thread at a time

    @contextmanager
    def transaction(self, stage: Path | None = None) -> Iterator[Transaction]:
        """Change the catalog. Durable when the block has ended; an error in it takes everything back."""
        with storage_faults(self._folder):
            if stage is not None:
                self._db.execute("ATTACH ? AS staged", (str(stage),))
        try:
            with storage_faults(self._folder):
                self._db.execute("BEGIN IMMEDIATE")
            change = Transaction(self._db, self.state, self._folder)
            yield change
            self._commit(change)
        except BaseException:
            _roll_back(self._db)
            raise
        finally:
            if stage is not None:
                self._db.execute("DETACH staged")

    def _commit(self, change: Transaction) -> None:
        try:
            change.finish()
            self.state = change.state
        except BaseException:
            # A disk that failed, or an interrupt, does not tell whether the change was still taken.
            _roll_back(self._db)
            with suppress(sqlite3.Error):
                actual = self._read_state(self._db)
                self.state = self.state if actual == self.state else actual
            raise

    @property
    def nbytes(self) -> int:
        """The size of its file, without the write-ahead log."""
        with storage_faults(self._folder):
            return (self._folder / FILE_NAME).stat().st_size

    def has_code_index(self) -> bool:
        """Say whether ``index_codes`` has nothing to do."""
        with storage_faults(self._folder):
            return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'item_code'").fetchone() is not None

    def index_codes(self) -> None:
        """See to it that items can be found by code.

        The index on codes is made when it is first needed: codes come in no order, so it makes bulk enrolment
        half as fast, and only ``on_duplicate`` asks for it. The first 8 bytes tell nearly all codes apart.
        """
        with storage_faults(self._folder):
            self._db.execute("CREATE INDEX IF NOT EXISTS item_code ON item (substr(code, 1, 8))")

    def find_code(self, code: bytes) -> Item | None:
        """Return the item with this code that has the smallest id. ``index_codes`` makes it fast."""
        with storage_faults(self._folder):
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM item WHERE substr(code, 1, 8) = ? AND code = ? ORDER BY id LIMIT 1",
                (code[:8], code),
            ).fetchone()
        return _item(row) if row else None

    @contextmanager
    def staged(self, codes: Iterable[tuple[str, bytes]], bits: int) -> Iterator[Path]:
        """Write new codes to a file beside the catalog, for a recoding in the block. Raises InvalidItem.

        Writing touches nothing that other calls use, so it may take as long as ``codes`` take to come.
        """
        path = self._folder / _STAGE_NAME
        try:
            with closing(self._new_stage(path)) as stage:
                for item_id, code in codes:
                    if not isinstance(code, bytes) or len(code) * 8 != bits:
                        raise InvalidItem(f"the new code of {item_id!r} does not have {bits} bits")
                    with storage_faults(self._folder):
                        stage.execute("INSERT OR REPLACE INTO code VALUES (?, ?)", (item_id, code))
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _new_stage(self, path: Path) -> sqlite3.Connection:
        path.unlink(missing_ok=True)
        with storage_faults(self._folder):
            stage = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                # It is never read after a crash.
                stage.execute("PRAGMA journal_mode = OFF")
                stage.execute("PRAGMA synchronous = OFF")
                stage.execute("CREATE TABLE code (id TEXT PRIMARY KEY, code BLOB NOT NULL) WITHOUT ROWID")
            except BaseException:
                stage.close()
                raise
        return stage


class Moment:
    """The catalog at one moment. What it yields must be read inside the block that gave it."""

    def __init__(self, db: sqlite3.Connection, state: State) -> None:
        """Read in a transaction that was begun."""
        self._db = db
        self.state = state

    def codes(self) -> Iterator[bytes]:
        """Yield every code, in the order of the rows."""
        with closing(self._db.execute("SELECT code FROM item ORDER BY row")) as found:
            for (code,) in found:
                yield code

    def items(self) -> Iterator[tuple[str, str, str | None, str | None, int]]:
        """Yield (id, label, metadata text, source, created at in ms) of every item, in the order of the rows."""
        columns = "id, label, metadata, source, created_at"
        with closing(self._db.execute(f"SELECT {columns} FROM item ORDER BY row")) as found:
            yield from found


class Transaction:
    """Changes to a catalog that become durable together."""

    def __init__(self, db: sqlite3.Connection, state: State, folder: Path) -> None:
        """Go on from ``state`` in a transaction that was begun."""
        self._db = db
        self._folder = folder
        self.state = state

    def make_ids(self, count: int, clock_ms: int, taken: set[str]) -> list[str]:
        """Return new ids, rising and above every id made before; none of them is in ``taken``."""
        number = first_number(self.state.last_id, clock_ms)
        while blocked := self._last_between(number, number + count - 1, taken):
            number = blocked + 1  # somebody chose an id of ours: an import from another gallery, say
        self.state = replace(self.state, last_id=number + count - 1)
        return format_ids(number, count)

    def _last_between(self, first: int, last: int, taken: set[str]) -> int | None:
        bounds = (format_id(first), format_id(last))
        with storage_faults(self._folder):
            found = self._db.execute("SELECT id FROM item WHERE id BETWEEN ? AND ? ORDER BY id", bounds).fetchall()
        ids = [item_id for (item_id,) in found] + [item_id for item_id in taken if bounds[0] <= item_id <= bounds[1]]
        # Other texts can sort between two ids of ours without being one.
        return max((number for number in map(parse_id, ids) if number is not None), default=None)

    def insert(self, items: Sequence[NewItem]) -> Rows:
        """Store items; return their rows, int64 (n,). Their ids must be free."""
        first = self.state.last_row + 1
        values = [
            (first + offset, item.id, item.label, item.code, item.metadata, item.source, item.created_ms)
            for offset, item in enumerate(items)
        ]
        with storage_faults(self._folder):
            self._db.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        last = self.state.last_row + len(values)
        self.state = replace(self.state, last_row=last, items=self.state.items + len(values))
        return np.arange(first, last + 1, dtype=np.int64)

    def delete(self, rows: Sequence[int]) -> None:
        """Remove items by row; each must be there."""
        first = self.state.last_removal + 1
        with storage_faults(self._folder):
            self._db.executemany("DELETE FROM item WHERE row = ?", [(row,) for row in rows])
            self._db.executemany("INSERT INTO removed VALUES (?, ?)", list(enumerate(rows, first)))
        self.state = replace(
            self.state,
            last_removal=self.state.last_removal + len(rows),
            items=self.state.items - len(rows),
        )

    def created_ms(self, row: int) -> int:
        """Return when the item of this row was first stored, in milliseconds since 1970."""
        with storage_faults(self._folder):
            (created,) = self._db.execute("SELECT created_at FROM item WHERE row = ?", (row,)).fetchone()
        return int(created)

    def note_snapshot(self, token: str, position: Position) -> None:
        """Remember that a snapshot was taken at this position."""
        with storage_faults(self._folder):
            self._db.execute("INSERT INTO snapshot VALUES (?, ?, ?)", (token, position.last_row, position.last_removal))

    def forget_before(self, token: str, position: Position) -> None:
        """Forget snapshots other than this one, and the removals that it has seen."""
        with storage_faults(self._folder):
            self._db.execute("DELETE FROM snapshot WHERE token <> ?", (token,))
            self._db.execute("DELETE FROM removed WHERE change <= ?", (position.last_removal,))

    def recode(self, bits: int, fingerprint: str | None, drop_missing: bool) -> int:
        """Give every item its staged code; return how many there are. Raises MissingCodes."""
        lacking = "FROM item WHERE id NOT IN (SELECT id FROM staged.code)"
        with storage_faults(self._folder):
            missing = self._db.execute(f"SELECT id, row {lacking} ORDER BY id").fetchall()
            if missing and not drop_missing:
                raise MissingCodes([item_id for item_id, _ in missing[:100]], len(missing))
            self.delete([row for _, row in missing])
            # Rows keep their numbers, so no snapshot of the old codes may be caught up from.
            self._db.execute("DELETE FROM snapshot")
            self._db.execute("DROP INDEX IF EXISTS item_code")
            new = "(SELECT code FROM staged.code WHERE staged.code.id = item.id)"
            self._db.execute(f"UPDATE item SET code = {new}")
        self.state = replace(self.state, bits=bits, fingerprint=fingerprint)
        return self.state.items

    def choose_method(self, method: Method) -> None:
        """Remember an index method."""
        self.state = replace(self.state, method=method)

    def finish(self) -> None:
        """Store the gallery's own record and commit."""
        state = self.state
        with storage_faults(self._folder):
            self._db.execute(
                "UPDATE gallery SET bits = ?, fingerprint = ?, method = ?, last_row = ?, last_removal = ?, last_id = ?",
                (state.bits, state.fingerprint, state.method, state.last_row, state.last_removal, state.last_id),
            )
            self._db.execute("COMMIT")


class ReaderPool:
    """Read connections, lent to one call at a time; a few idle ones are kept."""

    _KEPT = 4

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Make a pool whose connections ``connect`` makes when they are needed."""
        self._connect = connect
        self._changed = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection. Raises GalleryClosed."""
        with self._changed:
            if self._closed:
                raise GalleryClosed
            self._lent += 1
            db = self._idle.pop() if self._idle else None
        try:
            db = db or self._connect()
            yield db
        finally:
            with self._changed:
                self._lent -= 1
                keep = db is not None and len(self._idle) < self._KEPT and not self._closed
                if db is not None and keep:
                    self._idle.append(db)
                self._changed.notify_all()
            if db is not None and not keep:
                db.close()

    def close(self) -> None:
        """Lend no more, wait for what is lent, and close all."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._lent)
            for db in self._idle:
                db.close()
            self._idle.clear()


def format_time(milliseconds: int) -> str:
    """Return a time since 1970 as RFC 3339 in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _item(row: tuple[str, str, bytes, str | None, str | None, int]) -> Item:
    item_id, label, code, metadata, source, created_ms = row
    return Item(item_id, label, code, decode_metadata(metadata), source, format_time(created_ms))


def _roll_back(db: sqlite3.Connection) -> None:
    # SQLite itself takes a transaction back when the disk is full.
    if db.in_transaction:
        db.execute("ROLLBACK")
