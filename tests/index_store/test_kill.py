"""``kill -9`` at any moment: what was answered stays answered.

STRESS_KILLS=1000 asks for so many kills at random moments.
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import index_store
from index_store import GalleryStore, Item, open_gallery

KILLS = int(os.environ.get("STRESS_KILLS", "25"))
CHURN = Path(__file__).with_name("churn.py")
DIE = Path(__file__).with_name("die.py")
# The programs run what is tested here, whatever else is installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(index_store.__file__).parent.parent)}
Contents = dict[str, tuple[str, str]]  # id: (label, code)


def run_and_kill(folder: Path, seed: int, after_s: float, *, at_work: bool) -> list[dict]:
    """Run churn.py, kill it, and return all that it told.

    The time to the kill counts from its first change on, or, unless ``at_work``, from its start.
    """
    arguments = [sys.executable, str(CHURN), str(folder), str(seed)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, bufsize=0, env=ENVIRONMENT) as process:
        told = bytearray()
        deadline = None if at_work else time.monotonic() + after_s
        while deadline is None or time.monotonic() < deadline:
            wait_s = 60.0 if deadline is None else max(0.0, deadline - time.monotonic())
            if select.select([process.stdout], [], [], wait_s)[0]:
                told += process.stdout.read(65_536) or b""
                assert process.poll() is None, "the process ended by itself"
                deadline = deadline or time.monotonic() + after_s
        process.kill()
        told += process.stdout.read()
    assert process.returncode == -9
    # A line may have been cut short by the kill; what it tells was then not told.
    return [json.loads(line) for line in bytes(told).split(b"\n")[:-1]]


def apply(contents: Contents, change: list, ids: list[str] | None) -> Contents:
    """Return the contents after a change; ``ids`` are those that were answered."""
    kind, what = change
    if kind == "remove":
        return {item_id: item for item_id, item in contents.items() if item_id not in set(what)}
    named = zip([item[0] for item in what] if ids is None else ids, what, strict=True)
    return {**contents, **{item_id: (label, code) for item_id, (_, label, code) in named}}


def expect(contents: Contents, told: list[dict]) -> tuple[Contents, list | None]:
    """Return the contents as answered, and the change that was under way if there was one."""
    pending = None
    for message in told:
        if "begin" in message:
            pending = message["begin"]
        else:
            contents = apply(contents, pending, message["end"])
            pending = None
    return contents, pending


def check_answers(store: GalleryStore, contents: Contents, pending: list | None, tools) -> Contents:
    """The store holds what was answered, and of the change under way all or nothing."""
    held = {item.id: (item.label, item.code.hex()) for item in tools.walk(store, 5000)}
    if held != contents:
        assert pending is not None
        extra = [item_id for item_id in held if item_id not in contents]
        unnamed = pending[0] == "add" and pending[1][0][0] is None
        # Ids that the store made rise, so sorted they are in the order of the call.
        assert held == apply(contents, pending, sorted(extra) if unnamed else None)
    return held


def check_index(store: GalleryStore, held: Contents, rng: random.Random, tools) -> None:
    """Searching for everything gives the catalog's codes, counted bit by bit: all, or with a graph, no others."""
    assert len(store) == len(held)
    query = rng.randbytes(8)
    (result,) = store.search(tools.as_codes([query]), 64, max(1, len(held)))
    counted = sorted((tools.popcount(query, bytes.fromhex(code)), key) for key, (_, code) in held.items())
    found = [(match.distance, match.id) for match in result.matches]
    if tools.finds_all(store):
        assert found == counted
    else:
        assert found == sorted(set(found) & set(counted))
    for item_id in rng.sample(sorted(held), min(20, len(held))):
        label, code = held[item_id]
        (result,) = store.search(tools.as_codes([bytes.fromhex(code)]), 0, 10_000, label)
        assert (0, item_id) in [(match.distance, match.id) for match in result.matches]


def test_nothing_answered_is_lost_when_the_process_is_killed(folder: Path, tools) -> None:
    rng = random.Random(time.time_ns())
    contents: Contents = {}
    changes = interrupted = 0
    kinds = set()
    for seed in range(KILLS):
        told = run_and_kill(folder, seed, after_s=rng.random() * rng.choice([0.02, 0.1, 0.4]), at_work=seed % 5 > 0)
        answered, pending = expect(contents, told)
        with open_gallery(folder, 64, fingerprint="m1", threads=1, options=tools.OPTIONS) as store:
            contents = check_answers(store, answered, pending, tools)
            check_index(store, contents, rng, tools)  # by the index that the start made
            if seed % 3 == 0:
                tools.settle(store)
                check_index(store, contents, rng, tools)
            kinds.add(store.stats().serving)
        changes += sum("end" in message for message in told)
        interrupted += pending is not None
    # The test itself is worth something only if kills fell among and into changes.
    assert changes > 5 * KILLS
    assert interrupted > KILLS // 5
    assert kinds == {"Flat", "IVF", "HNSW32"}


@pytest.mark.parametrize(
    ("moment", "method"),
    [
        ("while a chunk of a snapshot is written", "IVF"),
        ("while a chunk of a snapshot is written", "HNSW32"),
        ("before the header of a snapshot is written", "HNSW32"),
        ("between noting a snapshot and publishing it", "IVF"),
        ("between publishing a snapshot and forgetting the log", "HNSW32"),
        ("while lists are trained", "IVF"),
        ("while a graph is linked", "HNSW32"),
        ("while a rebuild catches up", "IVF"),
        ("before a method is remembered", "HNSW32"),
        ("between remembering a method and the swap", "IVF"),
        ("between remembering a method and the swap", "Flat"),
        ("right after the swap", "HNSW32"),
        ("before a part is taken in", "IVF"),
        ("between taking a part out and putting it in", "IVF"),
        ("before a grown graph is adopted", "HNSW32"),
        ("after a grown graph was adopted", "HNSW32"),
        ("while another kind is built in the background", "IVF"),
        ("between the commit of a change and the index", "HNSW32"),
    ],
)
def test_nothing_is_lost_by_a_kill_at_this_moment(folder: Path, tools, caplog, moment: str, method: str) -> None:
    arguments = [sys.executable, str(DIE), str(folder), moment, method]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == -9, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    contents: Contents = {key: tuple(item) for key, item in lines[-1].items()}
    rng = random.Random(7)
    with open_gallery(folder, threads=1, options=tools.OPTIONS) as store:
        assert not (folder / "index.snapshot.tmp").exists()
        assert "ignored" not in caplog.text  # the old snapshot or the new one is used
        assert check_answers(store, contents, None, tools) == contents
        check_index(store, contents, rng, tools)
        tools.settle(store)
        check_index(store, contents, rng, tools)
        (item,) = store.add([Item(None, "after", bytes(8))])
        store.snapshot()
    contents[item.id] = ("after", bytes(8).hex())
    with open_gallery(folder, threads=1, options=tools.OPTIONS) as store:
        assert check_answers(store, contents, None, tools) == contents
        check_index(store, contents, rng, tools)
