"""Fill a gallery, tell what is in it, and die at a named moment of what comes then.

Run as a program by test_kill.py. The last line of standard output is ``{id: [label, code]}`` in JSON, as
answered by then; SIGKILL comes from the process itself, so nothing in it can tidy up.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

from index_store import IndexOptions, Item, open_gallery
from index_store.catalog import Transaction
from index_store.hamming import flat, graph, layered, lists, training
from index_store.live_index import LiveIndex
from index_store.snapshot import SnapshotWriter

OPTIONS = IndexOptions(ivf_from=16, hnsw_from=16, nprobe=10**6, ef_search=4096)
NEVER = 10**9
SHORTLY_S = 30


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str, call: int = 1) -> None:
    """Die before the call of this number, from now on, of a function."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **named):
        calls.append(1)
        if len(calls) == call:
            die()
        return original(*arguments, **named)

    setattr(owner, name, counted)


def after(owner: object, name: str) -> None:
    """Die after the first call of a function."""
    original = getattr(owner, name)

    def last(*arguments, **named):
        original(*arguments, **named)
        die()

    setattr(owner, name, last)


def snapshot(store) -> None:
    store.snapshot()


def rebuild_as(method: str):
    return lambda store: store.rebuild(method)


def fold(store) -> None:
    layered._LEAST_FOLD = 10
    store._live._wake_if_due()
    time.sleep(SHORTLY_S)


def build_in_background(store) -> None:
    store.close()
    open_gallery(store.path, method="HNSW32", threads=1, options=OPTIONS)
    time.sleep(SHORTLY_S)


def replace_one(store) -> None:
    store.replace(Item("item-40", "replaced", bytes(range(8))))


# A moment: where to die, and what leads there.
MOMENTS = {
    "while a chunk of a snapshot is written": (lambda: before(SnapshotWriter, "write", 4), snapshot),
    "before the header of a snapshot is written": (lambda: before(SnapshotWriter, "finish"), snapshot),
    "between noting a snapshot and publishing it": (lambda: before(SnapshotWriter, "publish"), snapshot),
    "between publishing a snapshot and forgetting the log": (lambda: after(SnapshotWriter, "publish"), snapshot),
    "while lists are trained": (lambda: before(training, "assign", 2), rebuild_as("IVF")),
    "while a graph is linked": (lambda: before(graph.Graph, "_mark_none", 2), rebuild_as("HNSW32")),
    "while a rebuild catches up": (lambda: before(layered.LayeredIndex, "remove", 2), rebuild_as("HNSW32")),
    "before a method is remembered": (lambda: before(Transaction, "finish"), rebuild_as("IVF")),
    "between remembering a method and the swap": (
        lambda: before(LiveIndex, "_put"),
        rebuild_as("HNSW32"),
    ),
    "right after the swap": (lambda: after(LiveIndex, "_put"), rebuild_as("IVF")),
    "before a part is taken in": (lambda: before(layered.LayeredIndex, "_take", 3), fold),
    "between taking a part out and putting it in": (lambda: before(lists.InvertedLists, "add", 2), fold),
    "before a grown graph is adopted": (lambda: before(layered.LayeredIndex, "_adopt"), fold),
    "after a grown graph was adopted": (lambda: after(layered.LayeredIndex, "_adopt"), fold),
    "while another kind is built in the background": (
        lambda: before(graph.Graph, "_mark_none", 2),
        build_in_background,
    ),
    "between the commit of a change and the index": (lambda: before(LiveIndex, "apply"), replace_one),
}


def main(folder: str, moment: str, method: str) -> None:
    for module in (flat, lists, graph):
        module.BLOCK = 20
    lists._LOCKED_AT_ONCE = 5
    layered._LEAST_FOLD = NEVER
    rng = random.Random(3)
    store = open_gallery(folder, 64, method, "m1", threads=1, options=OPTIONS)

    def add(first: int, end: int) -> None:
        store.add([Item(f"item-{n}", f"label {n % 5}", rng.randbytes(8)) for n in range(first, end)])

    add(0, 200)
    while store.stats().serving != method:
        time.sleep(0.001)
    store.snapshot()
    add(200, 260)
    store.remove([f"item-{n}" for n in range(0, 260, 9)])
    store.replace(Item("item-1", "replaced", rng.randbytes(8)))
    contents = {item.id: (item.label, item.code.hex()) for item in store.list(limit=1000).items}
    if moment == "between the commit of a change and the index":  # durable, though it was not answered
        contents["item-40"] = ("replaced", bytes(range(8)).hex())
    os.write(1, json.dumps(contents).encode() + b"\n")
    where, what = MOMENTS[moment]
    where()
    what(store)


if __name__ == "__main__":
    main(*sys.argv[1:])
