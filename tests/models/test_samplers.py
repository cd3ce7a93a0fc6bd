"""Batches of an epoch: nothing forgotten, nothing twice, the same on every rank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.training.config import ConfigError, Sampler
from models.training.data.datasets import DatasetError
from models.training.data.samplers import epoch_batches

SEED = (7, 0)


def labels(*counts: int) -> np.ndarray:
    """So many pictures of class 0, 1, ..., mixed."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("name", ["BatchSampler", "DistributedBatchSampler"])
@pytest.mark.parametrize(("count", "sizes"), [(20, [5] * 4), (23, [5] * 4 + [3]), (3, [3])])
def test_every_picture_comes_once(name: str, count: int, sizes: list[int]) -> None:
    drawn = epoch_batches(Sampler(name, 5, drop_last=False), np.zeros(count, np.int64), SEED)
    assert [len(batch) for batch in drawn] == sizes
    assert all(batch.dtype == np.int64 for batch in drawn)
    assert sorted(np.concatenate(drawn).tolist()) == list(range(count))


def test_drop_last_leaves_out_the_rest() -> None:
    sampler = Sampler("DistributedBatchSampler", 5)
    drawn = np.concatenate(epoch_batches(sampler, np.zeros(23, np.int64), SEED))
    assert len(drawn) == len(set(drawn.tolist())) == 20
    left_out = [
        set(range(23)) - set(np.concatenate(epoch_batches(sampler, np.zeros(23), (7, epoch)))) for epoch in range(9)
    ]
    assert len(set.union(*left_out)) > 10


def test_order_depends_on_the_seed_and_shuffle() -> None:
    sampler = Sampler("BatchSampler", 8)
    one, again, other = (
        np.concatenate(epoch_batches(sampler, np.zeros(64), seed)) for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert one.tolist() == again.tolist() != other.tolist()
    plain = np.concatenate(epoch_batches(Sampler("BatchSampler", 8, shuffle=False), np.zeros(64), (1, 2)))
    assert plain.tolist() == list(range(64))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(
    ("name", "batch", "each"), [("DistributedBatchSampler", 4, None), ("BatchSampler", 4, None), ("PKSampler", 4, 2)]
)
def test_ranks_together_are_one_process(name: str, batch: int, each: int | None, drop_last: bool, world: int) -> None:
    of = labels(9, 1, 12, 7, 5, 9, 5)  # 48 pictures: whole batches for 2 and 3 devices
    ranks = [epoch_batches(Sampler(name, batch, True, drop_last, each), of, SEED, rank, world) for rank in range(world)]
    alone = epoch_batches(Sampler(name, batch * world, True, drop_last, each), of, SEED)
    assert [np.concatenate(step).tolist() for step in zip(*ranks, strict=True)] == [step.tolist() for step in alone]


@pytest.mark.parametrize("count", [1, 2, 5, 17, 24, 25, 31])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_step_equally_often_and_miss_nothing(count: int, world: int) -> None:
    sampler = Sampler("DistributedBatchSampler", 3, drop_last=False)
    ranks = [epoch_batches(sampler, np.zeros(count), SEED, rank, world) for rank in range(world)]
    for step in zip(*ranks, strict=True):
        assert len({len(batch) for batch in step}) == 1
        assert 1 <= len(step[0]) <= 3
    drawn = np.concatenate([batch for rank in ranks for batch in rank])
    assert set(drawn.tolist()) == set(range(count))
    assert len(drawn) - count < world


def test_rank_batches_do_not_overlap() -> None:
    ranks = [epoch_batches(Sampler("DistributedBatchSampler", 4), np.zeros(40), SEED, rank, 2) for rank in range(2)]
    drawn = np.concatenate([batch for rank in ranks for batch in rank])
    assert sorted(drawn.tolist()) == list(range(40))


def test_pk_batches_hold_classes_of_equal_size() -> None:
    of = labels(40, 3, 1, 20, 11, 25)
    sampler = Sampler("PKSampler", 12, sample_per_id=4)
    drawn = epoch_batches(sampler, of, SEED)
    assert len(drawn) == 100 // 12
    for batch in drawn:
        assert list(Counter(of[batch].tolist()).values()) == [4, 4, 4]
        for label, members in Counter(of).items():
            chosen = [index for index in batch.tolist() if of[index] == label]
            if members >= 4:
                assert len(set(chosen)) == len(chosen)
            else:
                assert set(chosen) <= set(np.flatnonzero(of == label).tolist())
        assert (np.diff(of[batch]) != 0).sum() == 2  # the pictures of a class lie together
    assert len(epoch_batches(Sampler("PKSampler", 12, drop_last=False, sample_per_id=4), of, SEED)) == 9


def test_pk_draws_classes_by_their_pictures() -> None:
    of = labels(600, 200, 100, 100)
    seen = Counter()
    for epoch in range(20):
        for batch in epoch_batches(Sampler("PKSampler", 2, sample_per_id=2), of, (1, epoch)):
            seen[int(of[batch[0]])] += 1
    total = sum(seen.values())
    assert total == 10_000
    for label, share in enumerate([0.6, 0.2, 0.1, 0.1]):
        assert abs(seen[label] - share * total) < 5 * np.sqrt(total * share * (1 - share))


def test_pk_leaves_out_pictures_without_a_class() -> None:
    of = np.where(np.arange(60) % 3 == 0, -1, np.arange(60) % 5)
    drawn = np.concatenate(epoch_batches(Sampler("PKSampler", 10, sample_per_id=2), of, SEED))
    assert len(drawn) == 40
    assert (of[drawn] >= 0).all()


@pytest.mark.parametrize(
    ("sampler", "error", "message"),
    [
        (Sampler("Random", 4), ConfigError, "'Random'; there are BatchSampler, DistributedBatchSampler, PKSampler"),
        (Sampler("BatchSampler", 0), ConfigError, "batch_size must be positive, not 0"),
        (Sampler("PKSampler", 4), ConfigError, "sample_per_id"),
        (Sampler("PKSampler", 30, sample_per_id=4), ConfigError, "batch_size 30 is not divisible by sample_per_id 4"),
        (
            Sampler("PKSampler", 8, sample_per_id=2),
            DatasetError,
            "3 classes .* batch of 8 .* needs 4; lower batch_size",
        ),
        (Sampler("PKSampler", 24, sample_per_id=8), DatasetError, "20 pictures with a class do not fill a batch of 24"),
        (Sampler("BatchSampler", 21), DatasetError, "20 pictures do not fill a batch of 21: lower sampler.batch_size"),
    ],
)
def test_refuses_what_does_not_go_together(sampler: Sampler, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        epoch_batches(sampler, labels(10, 6, 4), SEED)


def test_too_few_for_all_devices_says_how_many_there_are() -> None:
    with pytest.raises(DatasetError, match="batch of 11 on each of 2 devices"):
        epoch_batches(Sampler("BatchSampler", 11), labels(20), SEED, 1, 2)
    with pytest.raises(DatasetError, match="batch of 4 on 2 devices with sample_per_id 2 needs 4"):
        epoch_batches(Sampler("PKSampler", 4, sample_per_id=2), labels(10, 6, 4), SEED, 0, 2)
