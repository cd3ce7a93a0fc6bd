"""Answers about a data folder in the JSON of the REST interface."""

from __future__ import annotations

from index_store import GalleryStore, Item
from service import answers
from service.recognizer import Recognition
from service.timing import StageTimes

from .access import Json


def item_json(item: Item) -> Json:
    """Give an item as ``GET /gallery/{id}`` does."""
    return answers.item_answer(item).model_dump(mode="json", exclude_unset=True)


def index_json(store: GalleryStore) -> Json:
    """Describe the index as ``GET /index`` does."""
    stats = store.stats()
    answer = answers.index_answer(stats, rebuild_progress=stats.rebuild_progress, rebuild_error=None)
    return answer.model_dump(mode="json", exclude_unset=True)


def search_json(recognition: Recognition, store: GalleryStore, times: StageTimes) -> Json:
    """Answer a search as ``POST /search`` does."""
    answer = answers.search_answer(
        recognition, times, model_fingerprint=store.fingerprint or "", index_items=len(store), explain=False
    )
    return answer.model_dump(mode="json", exclude_unset=True)
