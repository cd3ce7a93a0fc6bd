"""K-majority against its definition, computed bit by bit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from index_store import GalleryClosed
from index_store.hamming import Work
from index_store.hamming.training import _majorities, assign, train

WORK = Work(1, lambda: None)


def clustered(rng: random.Random, clusters: int, count: int, code_size: int = 8) -> np.ndarray:
    """Codes that are a few bits away from one of some centres."""
    centres = np.frombuffer(rng.randbytes(clusters * code_size), dtype=np.uint8).reshape(clusters, -1)
    noise = np.random.default_rng(rng.randrange(10**6)).random((count, code_size * 8)) < 0.05
    return centres[np.arange(count) % clusters] ^ np.packbits(noise, axis=1)


def mean_distance(codes: np.ndarray, centroids: np.ndarray, tools) -> float:
    return float(np.mean([min(tools.distances(code, centroids)) for code in codes]))


def test_every_code_is_assigned_to_a_nearest_centroid(tools, rng: random.Random, monkeypatch) -> None:
    monkeypatch.setattr("index_store.hamming.training.BLOCK", 30)
    codes, centroids = tools.make_codes(rng, 100, 3), tools.make_codes(rng, 7, 3)
    lists, mean = assign(codes, centroids, WORK)
    for code, number in zip(codes, lists.tolist(), strict=True):
        assert tools.distances(code, centroids)[number] == min(tools.distances(code, centroids))
    assert mean == pytest.approx(mean_distance(codes, centroids, tools))
    assert assign(codes[:0], centroids, WORK)[1] == 0


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_a_centroid_becomes_the_majority_of_each_bit(tools, rng: random.Random, monkeypatch, at_once: int) -> None:
    monkeypatch.setattr("index_store.hamming.training._CLUSTERS_AT_ONCE", at_once)
    sample, old = tools.make_codes(rng, 90, 2), tools.make_codes(rng, 10, 2)
    lists = np.array([rng.choice([0, 1, 3, 4, 8]) for _ in sample])  # the first, the last and others stay empty
    lists[:2] = 6  # two codes: where they differ, a bit is tied
    new = _majorities(sample, lists, old, np.random.default_rng(1))
    for number in range(10):
        bits = np.unpackbits(sample[lists == number], axis=1)
        if not len(bits):
            assert new[number].tobytes() in {code.tobytes() for code in sample}
            continue
        for bit, before, after in zip(bits.T, np.unpackbits(old[number]), np.unpackbits(new[number]), strict=True):
            ones, zeros = int((bit == 1).sum()), int((bit == 0).sum())
            assert after == (before if ones == zeros else ones > zeros)
    assert (np.unpackbits(sample[0]) != np.unpackbits(sample[1])).any()


def test_the_same_sample_gives_the_same_centroids(rng: random.Random) -> None:
    sample = clustered(rng, 9, 300)
    assert train(sample, 12, WORK).tobytes() == train(sample.copy(), 12, WORK).tobytes()


def test_codes_come_nearer_to_their_centroids_round_by_round(tools, rng: random.Random, monkeypatch) -> None:
    sample = clustered(rng, 10, 400)
    monkeypatch.setattr("index_store.hamming.training._LEAST_GAIN", -1)  # as many rounds as are asked for
    means = []
    for rounds in range(8):
        monkeypatch.setattr("index_store.hamming.training._ROUNDS", rounds)
        means.append(mean_distance(sample, train(sample, 10, WORK), tools))
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.8 * means[0]


@pytest.mark.parametrize(("distinct", "nlist"), [(1, 1), (1, 5), (3, 40), (40, 40)])
def test_few_distinct_codes_are_no_trouble(tools, rng: random.Random, distinct: int, nlist: int) -> None:
    codes = tools.make_codes(rng, distinct, 4)
    sample = codes[np.arange(40) % distinct]
    centroids = train(sample, nlist, WORK)
    assert centroids.shape == (nlist, 4)
    assert {code.tobytes() for code in centroids} <= {code.tobytes() for code in codes}
    if nlist >= 40:
        assert mean_distance(sample, centroids, tools) <= mean_distance(sample, codes[:1], tools)


def test_training_tells_its_progress_and_ends_when_it_is_to(rng: random.Random) -> None:
    told: list[float] = []
    sample = clustered(rng, 5, 200)
    train(sample, 5, Work(1, lambda: None, told.append))
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= 1

    def stop() -> None:
        raise GalleryClosed

    with pytest.raises(GalleryClosed):
        train(sample, 5, Work(1, stop))
