"""The measures and baselines behind the benchmark tables, against plain loops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def test_leave_one_out_agrees_with_plain_loops() -> None:
    from common.retrieval import leave_one_out

    rng = np.random.default_rng(1)
    labels = np.array([f"class {n}" for n in rng.integers(0, 6, 40)])
    similarity = rng.integers(0, 9, (40, 40)).astype(np.float32)  # many ties
    hits, precisions = [], []
    for query in range(40):
        others = sorted((j for j in range(40) if j != query), key=lambda j: (-similarity[query, j], j))
        right = [labels[j] == labels[query] for j in others]
        hits.append(right[0])
        at = [sum(right[: k + 1]) / (k + 1) for k in range(39) if right[k]]
        if at:
            precisions.append(sum(at) / len(at))
    found = leave_one_out(similarity, labels)
    assert found.top1 == pytest.approx(np.mean(hits))
    assert found.mean_ap == pytest.approx(np.mean(precisions))


def test_queries_rank_the_gallery_and_ties_go_by_position() -> None:
    from common.retrieval import queries_in_gallery

    similarity = np.array([[1, 1, 0], [0, 2, 2]], dtype=np.float32)
    found = queries_in_gallery(similarity, np.array(["b", "a"]), np.array(["a", "b", "a"]))
    assert found.top1 == 0.0  # position 0 wins the first tie with "a", position 1 the second with "b"
    assert found.mean_ap == pytest.approx((1 / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_hamming_similarity_is_minus_the_number_of_differing_bits() -> None:
    from common.retrieval import hamming_similarity

    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 256, (5, 64), dtype=np.uint8), rng.integers(0, 256, (7, 64), dtype=np.uint8)
    expected = [[-sum(int(x ^ y).bit_count() for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    np.testing.assert_array_equal(hamming_similarity(a, b), expected)


def test_phash_survives_light_and_size_but_not_another_picture() -> None:
    from common.baselines import phash
    from common.datasets import Photo
    from common.retrieval import hamming_similarity

    rng = np.random.default_rng(3)
    first, other = (cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (240, 180)) for _ in range(2))
    pictures = [first, cv2.resize((first * 0.8 + 10).astype(np.uint8), (120, 90)), other]
    photos = [Photo("", "", cv2.imencode(".png", picture)[1].tobytes()) for picture in pictures]
    codes = phash(photos)
    assert codes.shape == (3, 8)
    apart = -hamming_similarity(codes, codes)
    assert apart[0, 1] <= 10
    assert apart[0, 2] >= 20


def test_colour_histograms_are_unit_vectors_that_see_where_a_colour_is() -> None:
    from common.baselines import HISTOGRAM_BYTES, colour_histograms
    from common.datasets import Photo

    left = np.zeros((64, 64, 3), dtype=np.uint8)
    left[:, :32] = (0, 0, 255)
    pictures = [left, left[:, ::-1], cv2.resize(left, (96, 96))]
    photos = [Photo("", "", cv2.imencode(".png", picture)[1].tobytes()) for picture in pictures]
    rows = colour_histograms(photos)
    assert rows.shape == (3, HISTOGRAM_BYTES // 4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[2] > 0.98
    assert rows[0] @ rows[1] < 0.02


def test_the_centred_sign_has_one_bit_a_feature_about_the_gallery_mean() -> None:
    from common.baselines import centred_sign

    gallery = np.array([[0, 4] * 4, [2, 2] * 4], dtype=np.float32)
    np.testing.assert_array_equal(centred_sign(gallery, gallery), [[0b01010101], [0b10101010]])


def test_missing_data_is_named_and_only_a_named_folder_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from common import options

    arguments = options.parser("a benchmark")
    options.add_shared(arguments)
    with pytest.raises(SystemExit) as ended:
        options.shared_data(arguments.parse_args(["--shared", str(tmp_path)]), "grocery.tar")
    assert ended.value.code == 2
    assert "grocery.tar" in capsys.readouterr().err
    monkeypatch.setattr(options, "ROOT", tmp_path / "nowhere" / "repository")
    with pytest.raises(SystemExit) as ended:
        options.shared_data(arguments.parse_args([]), "grocery.tar")
    assert ended.value.code == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "grocery.tar").touch()
    chosen = arguments.parse_args(["--shared", str(tmp_path)])
    assert options.shared_data(chosen, "grocery.tar") == tmp_path / "data"
