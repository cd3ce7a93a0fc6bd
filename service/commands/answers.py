"""Answers about a data folder in the JSON of the REST interface."""

from __future__ import annotations

from index_store import GalleryStore, Item, Match
from service.recognizer import Recognition, RecognizedObject
from service.schemas import IndexAnswer, ItemAnswer, MatchAnswer, ObjectAnswer, SearchAnswer
from service.timing import StageTimes

from .access import Json


def item_answer(item: Item) -> Json:
    """Give an item as ``GET /gallery/{id}`` does."""
    answer = ItemAnswer(
        id=item.id or "", label=item.label, metadata=item.metadata, code=item.code.hex(), created_at=item.created_at
    )
    return answer.model_dump(mode="json")


def index_answer(store: GalleryStore) -> Json:
    """Describe the index as ``GET /index`` does."""
    stats = store.stats()
    answer = IndexAnswer(
        method=stats.method,
        bits=stats.bits,
        items=stats.items,
        bytes=stats.bytes,
        model_fingerprint=stats.model_fingerprint or "",
        rebuild_progress=stats.rebuild_progress,
        rebuild_error=None,
    )
    return answer.model_dump(mode="json")


def search_answer(recognition: Recognition, store: GalleryStore, times: StageTimes) -> Json:
    """Answer a search as ``POST /search`` does."""
    answer = SearchAnswer(
        objects=[_object(each) for each in recognition.objects],
        model_fingerprint=store.fingerprint or "",
        index_items=len(store),
        timings_ms={stage: round(1000 * seconds, 3) for stage, seconds in times.seconds.items()},
    )
    return answer.model_dump(mode="json", exclude={"dropped": True, "objects": {"__all__": {"nearest_outside"}}})


def _object(each: RecognizedObject) -> ObjectAnswer:
    candidate = each.candidate
    return ObjectAnswer(
        bbox=list(candidate.box) if candidate is not None else None,
        det_score=candidate.det_score if candidate is not None else None,
        is_whole_image=candidate is not None and candidate.is_whole_image,
        code=each.code.hex(),
        matches=[_match(match) for match in each.matches],
        truncated=each.truncated,
    )


def _match(match: Match) -> MatchAnswer:
    return MatchAnswer(id=match.id, label=match.label, distance=match.distance, metadata=match.metadata)
