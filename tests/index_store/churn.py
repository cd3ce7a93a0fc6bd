"""Change a gallery without end, telling every change before it is made and after it was answered.

Run as a program by test_kill.py, which kills it. Lines of JSON on standard output:
``{"begin": change}`` before a call, ``{"end": ids}`` when it has returned.

Lists and graphs are made of few items and recent ones are folded in early, so the background is always at work.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading

from index_store import IndexOptions, Item, open_gallery
from index_store.hamming import layered

OPTIONS = IndexOptions(ivf_from=16, hnsw_from=16, nprobe=10**6, ef_search=4096)
METHODS = ["Flat", "IVF", "HNSW32", "auto"]


def tell(**message: object) -> None:
    # One write a line: what a killed process had still in a buffer would be lost.
    os.write(1, json.dumps(message).encode() + b"\n")


def main(folder: str, seed: int) -> None:
    rng = random.Random(seed)
    layered._LEAST_FOLD = 10
    method = [*METHODS, None][seed % 5]
    store = open_gallery(folder, 64, method, "m1", threads=1, options=OPTIONS)
    ids = [item.id for item in store.list(limit=100_000).items]
    threading.Thread(target=maintain, args=(store, random.Random(seed)), daemon=True).start()
    number = 0
    while True:
        number += 1
        kind = rng.choice(["add", "add", "remove", "replace", "remove" if len(ids) > 1500 else "add"])
        if kind == "add":
            named = rng.random() < 0.5
            new = [
                (f"{seed}-{number}-{n}" if named else None, f"{seed}/{number}/{n}", rng.randbytes(8).hex())
                for n in range(rng.choice([1, 1, 3, 40]))
            ]
            tell(begin=["add", new])
            added = store.add([Item(item_id, label, bytes.fromhex(code)) for item_id, label, code in new])
            tell(end=[item.id for item in added])
            ids += [item.id for item in added]
        elif kind == "remove" and ids:
            gone = rng.sample(ids, min(len(ids), rng.choice([1, 1, 4, 30])))
            tell(begin=["remove", gone])
            store.remove(gone)
            tell(end=gone)
            ids = sorted(set(ids).difference(gone))
        elif kind == "replace" and ids:
            new = [(rng.choice(ids), f"{seed}/{number}", rng.randbytes(8).hex())]
            tell(begin=["add", new])
            store.replace(Item(new[0][0], new[0][1], bytes.fromhex(new[0][2])))
            tell(end=[new[0][0]])


def maintain(store, rng: random.Random) -> None:
    """Snapshots and rebuilds beside the changes, so that kills fall into them too."""
    while True:
        threading.Event().wait(rng.random() * 0.05)
        if rng.random() < 0.5:
            store.snapshot()
        else:
            store.rebuild(rng.choice([*METHODS, None]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
