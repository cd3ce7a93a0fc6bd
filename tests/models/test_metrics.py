"""Retrieval metrics against the reference's figures, and against loops over lists of bits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from models.training.hamming_ranking import hamming_distances, rank_gallery
from models.training.metrics import Evaluation, bit_statistics, evaluate_codes, retrieval_metrics


def test_figures_are_the_references(shared: Path) -> None:
    with np.load(shared / "parity" / "metrics.npz") as data:
        arrays = [data[name] for name in ("query", "gallery", "query_label", "gallery_label")]
    expected = json.loads((shared / "parity" / "metrics.json").read_text())
    found = retrieval_metrics(*arrays, topk=(1, 5))
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-9)


class Oracle:
    """The metrics by their definitions, over lists of bits."""

    def __init__(self, query, gallery, query_label, gallery_label, exclude_self=False) -> None:
        query, gallery = (np.unpackbits(codes, axis=1).tolist() for codes in (query, gallery))
        self.rankings = []  # a list of (distance, relevant) for each query, best first
        for number, (code, label) in enumerate(zip(query, query_label, strict=True)):
            ranking = []
            for position, (other, other_label) in enumerate(zip(gallery, gallery_label, strict=True)):
                if not (exclude_self and position == number):
                    distance = sum(a != b for a, b in zip(code, other, strict=True))
                    ranking.append((distance, position, bool(label == other_label)))
            self.rankings.append([(distance, relevant) for distance, _, relevant in sorted(ranking)])

    def recall(self, k: int) -> float:
        judged = [any(r for _, r in ranking[:k]) for ranking in self.rankings if any(r for _, r in ranking)]
        return sum(judged) / len(judged) if judged else math.nan

    def precision(self, k: int) -> float:
        return sum(sum(r for _, r in ranking[:k]) / k for ranking in self.rankings) / len(self.rankings)

    @staticmethod
    def average_precision(ranking) -> float:
        found, total = 0, 0.0
        for rank, (_, relevant) in enumerate(ranking, 1):
            if relevant:
                found += 1
                total += found / rank
        return total / found

    def mean_average_precision(self) -> float:
        judged = [self.average_precision(ranking) for ranking in self.rankings if any(r for _, r in ranking)]
        return sum(judged) / len(judged) if judged else math.nan

    def inside(self) -> list:
        return [[pair for pair in ranking if pair[0] <= 2] for ranking in self.rankings]

    def map_radius2(self) -> float:
        found = [self.average_precision(part) if any(r for _, r in part) else 0.0 for part in self.inside()]
        return sum(found) / len(found)

    def precision_radius2(self) -> float:
        found = [sum(r for _, r in part) / len(part) if part else 0.0 for part in self.inside()]
        return sum(found) / len(found)

    def empty_radius2(self) -> float:
        return sum(not part for part in self.inside()) / len(self.rankings)

    def curve(self, bits: int) -> tuple[list[float], list[float]]:
        pairs = [pair for ranking in self.rankings for pair in ranking]
        relevant = sum(r for _, r in pairs)
        precisions, recalls = [], []
        for radius in range(bits + 1):
            within = [r for distance, r in pairs if distance <= radius]
            precisions.append(sum(within) / len(within) if within else math.nan)
            recalls.append(sum(within) / relevant if relevant else math.nan)
        return precisions, recalls


def assert_is(found: Evaluation, oracle: Oracle) -> None:
    assert found.recall == pytest.approx({k: oracle.recall(k) for k in found.recall}, nan_ok=True)
    assert found.precision == pytest.approx({k: oracle.precision(k) for k in found.precision})
    assert found.mean_average_precision == pytest.approx(oracle.mean_average_precision(), nan_ok=True)
    assert found.map_radius2 == pytest.approx(oracle.map_radius2())
    assert found.precision_radius2 == pytest.approx(oracle.precision_radius2())
    assert found.empty_radius2 == pytest.approx(oracle.empty_radius2())
    precision, recall = oracle.curve(found.bits)
    assert found.curve_precision == pytest.approx(precision, nan_ok=True)
    assert found.curve_recall == pytest.approx(recall, nan_ok=True)


def near_codes(rng: np.random.Generator, count: int, bits: int, classes: int, noise: float):
    """Codes about a centre for each class, so that radius 2 is neither empty nor everything."""
    centres = np.random.default_rng(5).integers(0, 2, (classes, bits))
    labels = rng.integers(0, classes, count)
    return np.packbits(centres[labels] ^ (rng.random((count, bits)) < noise), axis=1), labels


@pytest.mark.parametrize(
    ("bits", "noise", "queries"),
    [
        pytest.param(8, 0.1, 12, id="nearly-all-tie"),
        pytest.param(16, 0.1, 12, id="many-ties"),
        pytest.param(48, 0.04, 12, id="some-inside-radius-2"),
        pytest.param(256, 0.2, 12, id="distances-above-a-byte-and-radius-2-empty"),
        pytest.param(16, 0.1, 1, id="one-query"),
    ],
)
def test_figures_are_those_of_plain_loops(bits: int, noise: float, queries: int) -> None:
    rng = np.random.default_rng(bits)
    query, query_label = near_codes(rng, queries, bits, 7, noise)
    gallery, gallery_label = near_codes(rng, 60, bits, 5, noise)  # two classes of queries have no answer
    found = evaluate_codes(
        query, gallery, query_label, gallery_label, recall_topk=(1, 3, 100), precision_topk=(1, 4, 100)
    )
    assert_is(found, Oracle(query, gallery, query_label, gallery_label))
    assert (found.bits, found.queries, found.gallery) == (bits, queries, 60)
    assert found.answerable == sum(label in gallery_label for label in query_label)
    assert found.distinct_codes == len({code.tobytes() for code in gallery})
    if bits == 48:
        assert 0 < found.empty_radius2 < 1
        assert 0 < found.map_radius2 < 1


def test_a_query_is_left_out_of_its_own_ranking() -> None:
    codes, labels = near_codes(np.random.default_rng(1), 30, 16, 6, 0.1)
    labels[0] = 99  # alone in its class, so not answerable once it is left out
    found = evaluate_codes(codes, codes, labels, labels, precision_topk=(1, 3, 30), exclude_self=True)
    assert_is(found, Oracle(codes, codes, labels, labels, exclude_self=True))
    assert found.answerable == 29
    assert evaluate_codes(codes, codes, labels, labels).recall[1] > found.recall[1]


def test_equal_codes_rank_by_gallery_position() -> None:
    gallery = np.array([[0b1], [0b0], [0b1], [0b0]], np.uint8)
    ((order, distances),) = rank_gallery(np.array([[0b0]], np.uint8), gallery)
    assert order.tolist() == [1, 3, 0, 2]
    assert distances.tolist() == [0, 0, 1, 1]


def test_rankings_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    query, gallery = (rng.integers(0, 256, (count, 2), np.uint8) for count in (23, 40))
    own = rng.integers(-1, 40, 23)
    whole = [(order.tolist(), distances.tolist()) for order, distances in rank_gallery(query, gallery, own)]
    for distances_at_once in (1, 100, 23 * 40 - 1):
        monkeypatch.setattr("models.training.hamming_ranking._BLOCK_DISTANCES", distances_at_once)
        assert [(o.tolist(), d.tolist()) for o, d in rank_gallery(query, gallery, own)] == whole


@pytest.mark.parametrize("width", [1, 3, 6, 8, 13, 64])
def test_distances_count_the_bits_that_differ(width: int) -> None:
    rng = np.random.default_rng(width)
    a, b = (rng.integers(0, 256, (count, width), np.uint8) for count in (5, 7))
    expected = [[sum((int(x) ^ int(y)).bit_count() for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    assert hamming_distances(a, b).tolist() == expected


def test_without_any_answer_figures_are_not_numbers() -> None:
    query, gallery = np.zeros((2, 1), np.uint8), np.zeros((3, 1), np.uint8)
    found = evaluate_codes(query, gallery, np.array([1, 2]), np.array([3, 3, 3]), precision_topk=(1,))
    assert found.answerable == 0
    assert math.isnan(found.recall[1])
    assert math.isnan(found.mean_average_precision)
    assert (found.precision[1], found.map_radius2, found.precision_radius2) == (0, 0, 0)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (written["mAP"], written["recall1"], written["recall5"], written["precision@1"]) == (None, None, None, 0)
    assert written["precision_recall"][8] == {"radius": 8, "precision": 0.0, "recall": None}
    assert written["bit_balance"] == [-1.0] * 8


def test_bit_statistics_are_those_of_correlation_coefficients() -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (9001, 24))  # more than a block, and no whole number of bytes
    bits[:, 1] = bits[:, 0]
    bits[:, 2] = 1 - bits[:, 0]
    bits[:, 5] = 1
    bits[:, 7] = rng.random(9001) < 0.1
    balance, correlation, constant = bit_statistics(np.packbits(bits, axis=1))
    np.testing.assert_allclose(balance, (2 * bits - 1).mean(axis=0), atol=1e-12)
    coefficients = np.abs(np.corrcoef(np.delete(bits, 5, axis=1).T))
    assert correlation == pytest.approx(coefficients[~np.eye(23, dtype=bool)].mean())
    assert constant == 1


def test_constant_codes_have_no_correlation() -> None:
    balance, correlation, constant = bit_statistics(np.full((5, 1), 0b11110000, np.uint8))
    assert balance.tolist() == [1.0] * 4 + [-1.0] * 4
    assert (correlation, constant) == (0.0, 8)


CODES = np.where(np.eye(4, 8), 1.0, -1.0).astype(np.float32)
LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": CODES[:, :6], "gallery": CODES[:, :6]}, "multiple of 8, not 6"),
        ({"query": CODES * 0.5}, "query codes must be floats of -1 and 1"),
        ({"gallery": CODES > 0}, "gallery codes must be floats of -1 and 1"),
        ({"query": np.tile(CODES, 2)}, "16 bits, gallery codes 8"),
        ({"query": CODES[0]}, "must be a float matrix"),
        ({"query": CODES[:0], "query_label": LABELS[:0]}, "query codes must be"),
        ({"query_label": LABELS[:3]}, r"query labels must be integers \(4,\) or \(4, 1\), not int64 \(3,\)"),
        ({"gallery_label": LABELS.astype(np.float32)}, "gallery labels must be integers"),
        ({"topk": (0,)}, "ranks must be whole numbers from 1"),
    ],
)
def test_what_is_no_code_or_label_is_refused(changed: dict, message: str) -> None:
    arguments = {"query": CODES, "gallery": CODES, "query_label": LABELS, "gallery_label": LABELS, "topk": 1}
    assert retrieval_metrics(**arguments)["recall1"] == 1.0
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(**(arguments | changed))


def test_packed_codes_of_another_type_are_refused() -> None:
    codes = np.zeros((3, 2), np.uint8)
    labels = np.zeros(3, np.int64)
    with pytest.raises(ValueError, match=r"gallery codes must be uint8 .* not int64"):
        evaluate_codes(codes, codes.astype(np.int64), labels, labels)
    with pytest.raises(ValueError, match="same pictures on both sides, not 2 and 3"):
        evaluate_codes(codes[:2], codes, labels[:2], labels, exclude_self=True)
    with pytest.raises(ValueError, match="own must be int64"):
        next(rank_gallery(codes, codes, np.zeros(2, np.int64)))


def test_labels_may_be_columns() -> None:
    flat = retrieval_metrics(CODES, CODES, LABELS, LABELS, (1, 2))
    assert retrieval_metrics(CODES, CODES, LABELS[:, None], LABELS[:, None], [1, 2]) == flat
