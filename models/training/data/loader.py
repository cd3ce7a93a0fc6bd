"""Batches of views, drawn by threads ahead of the consumer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .datasets import Dataset
from .errors import DatasetError
from .samplers import Indexes
from .transforms import Transforms

_BATCHES_AHEAD = 2
_PICTURES_A_TASK = 16
_Begun = TypeVar("_Begun")


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step sees.

    Attributes:
        views: float32 (B, 3, height, width), normalized.
        labels: int64 (B,), -1 for none.
        teacher: float32 (B, d).
        teacher_group: int64 (B,), -1 for none.
        indexes: int64 (B,), which pictures of the dataset.
    """

    views: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    teacher: npt.NDArray[np.float32]
    teacher_group: npt.NDArray[np.int64]
    indexes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.labels)


def batches(
    dataset: Dataset,
    transforms: Transforms,
    index_batches: Sequence[Indexes],
    seed: tuple[int, ...] | None,
    *,
    start: int = 0,
    workers: int = 2,
) -> Iterator[Batch]:
    """Draw the batches of an epoch.

    A view depends only on the seed, the picture's index, the number of the step, and how often the picture was in the
    batch before: not on the number of workers or of ranks, nor on ``start``.

    Args:
        dataset: where pictures and labels come from.
        transforms: what makes views of them.
        index_batches: of :func:`models.training.data.samplers.epoch_batches`.
        seed: of the views, such as (seed, epoch). None: nothing is random, for evaluation.
        start: skips so many batches without drawing them, and gives the very batches that would have come then.
        workers: threads; at least one.

    Raises:
        DatasetError: a picture cannot be decoded or transformed; the text names it.
    """

    def begin(pool: ThreadPoolExecutor, step: int) -> _Pending:
        return _Pending(pool, dataset, transforms, index_batches[step], None if seed is None else (seed, step))

    for pending in begun_ahead(begin, range(start, len(index_batches)), workers):
        yield pending.result()


def begun_ahead(
    begin: Callable[[ThreadPoolExecutor, int], _Begun], steps: Iterable[int], workers: int
) -> Iterator[_Begun]:
    """Begin the batches of steps in threads, some of them before they are asked for; end the threads at the end.

    Args:
        begin: starts the batch of a step in a pool.
        steps: in order.
        workers: threads; at least one.
    """
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="loader")
    waiting = iter(steps)
    try:
        ahead = deque(begin(pool, step) for step in islice(waiting, _BATCHES_AHEAD))
        while ahead:
            ahead.extend(begin(pool, step) for step in islice(waiting, 1))
            yield ahead.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


class _Pending:
    """A batch under way, in tasks of a few pictures each."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        dataset: Dataset,
        transforms: Transforms,
        indexes: Indexes,
        seed: tuple[tuple[int, ...], int] | None,
    ) -> None:
        self._views = np.empty((len(indexes), 3, *transforms.size), np.float32)
        self._dataset = dataset
        self._transforms = transforms
        self._indexes = indexes
        self._seed = seed
        self._occurrences = _occurrences(indexes)
        spans = range(0, len(indexes), _PICTURES_A_TASK)
        self._tasks: list[Future[None]] = [pool.submit(self._draw, first) for first in spans]

    def result(self) -> Batch:
        """Wait for it."""
        for task in self._tasks:
            task.result()
        data, indexes = self._dataset, self._indexes
        return Batch(self._views, data.labels[indexes], data.teacher[indexes], data.teacher_group[indexes], indexes)

    def _draw(self, first: int) -> None:
        for row in range(first, min(first + _PICTURES_A_TASK, len(self._indexes))):
            index = int(self._indexes[row])
            image = self._dataset.read(index)
            try:
                self._views[row] = self._transforms(image, self._rng(row))
            except DatasetError:
                raise
            except Exception as error:
                where = self._dataset.where(index)
                raise DatasetError(f"{where} cannot be transformed: {type(error).__name__}: {error}") from error

    def _rng(self, row: int) -> np.random.Generator | None:
        if self._seed is None or not self._transforms.is_random:
            return None
        seed, step = self._seed
        key = (int(self._indexes[row]), step, self._occurrences[row])
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _occurrences(indexes: Indexes) -> list[int]:
    """Count how often each index came before in the batch."""
    seen: Counter[int] = Counter()
    counts = []
    for index in indexes.tolist():
        counts.append(seen[index])
        seen[index] += 1
    return counts
