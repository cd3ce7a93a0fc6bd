"""The loop's JSONL log, read as the training went in the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read a training's log as it went in the end.

    Where a record's place is at or before that of an earlier one, the training was resumed from a checkpoint, and
    everything from that place on was done again: only what came later counts.

    Returns:
        The records of steps and of evaluations, in order, each with ``x``, the steps done over all stages.

    Raises:
        OSError: the file cannot be read.
    """
    stages: dict[Any, int] = {}
    kept: list[tuple[tuple[int, int, bool], dict[str, Any]]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
            stage, step, is_eval = record["stage"], int(record["step"]), record["event"] == "eval"
        except (ValueError, KeyError, TypeError):  # the line that a kill has cut
            continue
        place = (stages.setdefault(stage, len(stages)), step, is_eval)
        while kept and kept[-1][0] >= place:
            kept.pop()
        kept.append((place, record))
    offsets = _stage_offsets([place for place, _ in kept])
    for place, record in kept:
        record["x"] = offsets[place[0]] + place[1]
    return (
        [record for place, record in kept if not place[2]],
        [record for place, record in kept if place[2]],
    )


def cut_log(path: Path, done: tuple[int, int]) -> None:
    """Cut off the records after a checkpoint, whose steps will be taken and logged again.

    Args:
        path: the log; where it is missing an empty one is made.
        done: (number of the stage, step) of the checkpoint.

    Raises:
        OSError: it cannot be read or written; then it is as it was.
    """
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines if _is_within(line, done)), "utf-8")
    temporary.replace(path)


def _is_within(line: str, done: tuple[int, int]) -> bool:
    try:
        record = json.loads(line)
        return (record["number"], record["step"]) <= done
    except (ValueError, KeyError, TypeError):  # the line that a kill has cut
        return False


def _stage_offsets(places: Sequence[tuple[int, int, bool]]) -> dict[int, int]:
    """How many steps came before each stage, where its count starts again; 0 where it goes on."""
    offsets: dict[int, int] = {}
    end = 0
    for stage, step, _ in places:
        if stage not in offsets:
            offsets[stage] = end if step <= end else 0
        end = max(end, offsets[stage] + step)
    return offsets
