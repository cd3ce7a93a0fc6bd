"""How fast do codes go into the gallery, each durable and searchable when the call returns?

The same rows go, in turns, into a gallery store, into a bare SQLite table with the same two indexes and the same
durability (WAL, synchronous=FULL), and into a bare `IndexBinaryFlat`, which keeps nothing: first one by one, then in
batches, each batch one transaction. At the end a running service takes batches over HTTP from one client.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import faiss
import httpx
import numpy as np
import numpy.typing as npt
from common import options, serving, tables

from index_store import GalleryStore, Item, open_gallery

Codes = npt.NDArray[np.uint8]

_LABELS = 1000
_TABLE = """
CREATE TABLE item (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, code BLOB NOT NULL, metadata TEXT,
    source TEXT, created_at INTEGER NOT NULL
);
CREATE INDEX item_label ON item (label, id);
"""


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    arguments.add_argument("--items", type=int, default=1_000_000, help="codes in batches (default 1000000)")
    arguments.add_argument("--batch", type=int, default=1000, help="codes a batch (default 1000)")
    arguments.add_argument("--singles", type=int, default=2000, help="codes one by one (default 2000)")
    arguments.add_argument("--http", type=int, default=100_000, help="codes over HTTP (default 100000; 0: no service)")
    arguments.add_argument("--bits", type=int, default=512, help="length of the codes (default 512)")
    chosen = arguments.parse_args()
    rows = _measure("one by one", chosen.singles, 1, chosen.bits)
    rows += _measure(f"batches of {chosen.batch:,}", chosen.items, chosen.batch, chosen.bits)
    if chosen.http:
        rate = _over_http(chosen.http, chosen.batch)
        rows.append([f"`POST /gallery/batch`, {chosen.batch:,} codes a request", f"{rate:,.0f}", "", "", ""])
    tables.show(
        f"Codes of {chosen.bits} bit into a gallery that grows to {chosen.items:,}",
        ["", "items a second", "the last tenth", "times SQLite", "times Faiss"],
        rows,
        [
            "Ids are made by the store; SQLite gets the same rows. In turns, in one process, on one thread.",
            "Over HTTP: one client, bodies written beforehand, the starter's bits, a new gallery.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _measure(name: str, items: int, batch: int, bits: int) -> list[list[str]]:
    """Rows of the table for one size of batches."""
    index = faiss.IndexBinaryFlat(bits)
    with (
        tempfile.TemporaryDirectory(prefix="shitu-bench-") as folder,
        closing(_bare_table(Path(folder) / "bare.sqlite3")) as bare,
        open_gallery(Path(folder) / "gallery", bits, threads=1) as store,
    ):
        seconds = np.array(list(_in_turns(store, bare, index, items, batch)))
        if not len(store) == index.ntotal == bare.execute("SELECT count(*) FROM item").fetchone()[0] == items:
            raise RuntimeError("the three do not hold the same")
    rates = items / seconds.sum(axis=0)
    last = max(1, len(seconds) // 10)
    late = last * batch / seconds[-last:].sum(axis=0)
    return [
        [f"{who}, {name}", f"{rate:,.0f}", f"{end:,.0f}", f"{rate / rates[1]:.2f}", f"{rate / rates[2]:.4f}"]
        for who, rate, end in zip(("store", "SQLite alone", "Faiss alone"), rates, late, strict=True)
    ]


def _in_turns(
    store: GalleryStore, bare: sqlite3.Connection, index: faiss.IndexBinaryFlat, items: int, batch: int
) -> Iterator[tuple[float, float, float]]:
    """Seconds that the store, SQLite and Faiss took for each batch, in turns so that a busy machine slows all."""
    rng = np.random.default_rng(7)
    for start in range(0, items, batch):
        codes = rng.integers(0, 256, (min(batch, items - start), index.d // 8), dtype=np.uint8)
        new = [Item(None, f"label {n % _LABELS}", code.tobytes()) for n, code in enumerate(codes, start)]
        stored, store_s = _timed(lambda new=new: store.add(new))
        rows = [(start + n, item.id, item.label, item.code, None, None, 0) for n, item in enumerate(stored, 1)]
        _, bare_s = _timed(lambda rows=rows: _insert(bare, rows))
        _, index_s = _timed(lambda codes=codes: index.add(codes))
        yield store_s, bare_s, index_s


def _timed(call: Callable[[], Sequence[Item]]) -> tuple[Sequence[Item], float]:
    before = time.perf_counter()
    result = call()
    return result, time.perf_counter() - before


def _bare_table(path: Path) -> sqlite3.Connection:
    bare = sqlite3.connect(path, isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute("PRAGMA wal_autocheckpoint = 8000")  # as the store has them
    bare.execute("PRAGMA cache_size = -8192")
    bare.executescript(_TABLE)
    return bare


def _insert(bare: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    bare.execute("BEGIN")
    bare.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    bare.execute("COMMIT")


def _over_http(items: int, batch: int) -> float:
    """Items a second that a service takes from one client."""
    with serving.service({"SHITU_DETECTOR_DIR": ""}) as process:
        bits = httpx.get(f"{process.url}/index").json()["bits"]
        rng = np.random.default_rng(8)
        bodies = [_body(rng.integers(0, 256, (batch, bits // 8), dtype=np.uint8)) for _ in range(items // batch)]
        with closing(HTTPConnection("127.0.0.1", process.port, timeout=60)) as client:
            before = time.perf_counter()
            for body in bodies:
                client.request("POST", "/gallery/batch", body, {"Content-Type": "application/json"})
                answer = client.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"the service answered {answer.status}: {text[:500].decode(errors='replace')}")
            seconds = time.perf_counter() - before
        held = httpx.get(f"{process.url}/index").json()["items"]
        if held != len(bodies) * batch:
            raise RuntimeError(f"the service holds {held} items")
    return held / seconds


def _body(codes: Codes) -> bytes:
    items = [{"code": code.tobytes().hex(), "label": f"label {n % _LABELS}"} for n, code in enumerate(codes)]
    return json.dumps({"items": items}).encode()


if __name__ == "__main__":
    sys.exit(main())
