"""What the service knows, as the records that it answers with; no HTTP, so the command line answers alike."""

from __future__ import annotations

from typing import Any

from index_store import IndexStats, Item, Match

from .drawing import Mark
from .recognizer import Recognition, RecognizedObject
from .schemas import DroppedAnswer, IndexAnswer, ItemAnswer, MatchAnswer, ObjectAnswer, SearchAnswer
from .timing import StageTimes


def item_answer(item: Item) -> ItemAnswer:
    """Describe an item."""
    return ItemAnswer(
        id=item.id or "",
        label=item.label,
        metadata=item.metadata,
        code=item.code.hex(),
        created_at=item.created_at,
    )


def match_answer(match: Match) -> MatchAnswer:
    """Describe a match."""
    return MatchAnswer(id=match.id, label=match.label, distance=match.distance, metadata=match.metadata)


def index_answer(stats: IndexStats, *, rebuild_progress: float | None, rebuild_error: str | None) -> IndexAnswer:
    """Describe the index, and the rebuild under way or the last one."""
    return IndexAnswer(
        method=stats.method,
        serving=stats.serving,
        reason=stats.reason,
        parameters=stats.parameters,
        bits=stats.bits,
        items=stats.items,
        recent_items=stats.recent,
        bytes=stats.bytes,
        model_fingerprint=stats.model_fingerprint,
        rebuild_progress=rebuild_progress,
        rebuild_error=rebuild_error,
    )


def search_answer(
    recognition: Recognition, times: StageTimes, *, model_fingerprint: str, index_items: int, explain: bool
) -> SearchAnswer:
    """Describe what a search found; only with ``explain`` are the members set that belong to it."""
    members: dict[str, Any] = {}
    if explain:
        members["dropped"] = [
            DroppedAnswer(**_object(each.object, explain=True), reason=each.reason) for each in recognition.dropped
        ]
    return SearchAnswer(
        objects=[ObjectAnswer(**_object(each, explain)) for each in recognition.objects],
        model_fingerprint=model_fingerprint,
        index_items=index_items,
        timings_ms={stage: round(seconds * 1000, 3) for stage, seconds in times.seconds.items()},
        **members,
    )


def marks_of(answer: SearchAnswer) -> list[Mark]:
    """Tell how to draw the objects of an answer onto its picture: each with its best match."""
    marks = []
    for each in answer.objects:
        if each.bbox is not None:
            x1, y1, x2, y2 = each.bbox
            best = each.matches[0] if each.matches else None
            label, distance = (best.label, best.distance) if best is not None else (None, None)
            marks.append(Mark((x1, y1, x2, y2), label, distance, each.is_whole_image))
    return marks


def _object(each: RecognizedObject, explain: bool) -> dict[str, Any]:
    candidate = each.candidate
    members: dict[str, Any] = {
        "bbox": list(candidate.box) if candidate is not None else None,
        "det_score": candidate.det_score if candidate is not None else None,
        "is_whole_image": candidate is not None and candidate.is_whole_image,
        "code": each.code.hex(),
        "matches": [match_answer(match) for match in each.matches],
        "truncated": each.truncated,
    }
    if explain:
        members["nearest_outside"] = match_answer(each.nearest_outside) if each.nearest_outside is not None else None
    return members
