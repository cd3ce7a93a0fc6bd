"""Binarisation and packing, against the reference's bytes and against counting by hand."""

from pathlib import Path

import numpy as np
import pytest

from models.inference import pack_bits


@pytest.mark.parametrize("method", ["sign", "round"])
def test_equals_the_reference(shared: Path, method: str) -> None:
    golden = np.load(shared / "parity" / "binarize.npz")
    assert np.array_equal(pack_bits(golden[f"{method}_in"], method), golden[f"{method}_bytes"])


def test_first_feature_is_the_highest_bit_of_the_first_byte() -> None:
    features = np.full((1, 16), -1.0, np.float32)
    features[0, [0, 9]] = 1.0
    assert pack_bits(features).tolist() == [[0b1000_0000, 0b0100_0000]]


def test_edges_of_both_methods() -> None:
    values = np.array([[0.0, -0.0, np.nan, 1e-30, -1e-30, np.inf, -np.inf, 1.0]])
    assert pack_bits(values).tolist() == [[0b0001_0101]]
    values = np.array([[0.5, 0.5000001, 0.0, 1.0, np.nan, 0.4999, 0.75, 0.25]])
    assert pack_bits(values, "round").tolist() == [[0b0101_0010]]


def test_no_features_give_no_codes() -> None:
    assert pack_bits(np.zeros((0, 64), np.float32)).shape == (0, 8)


@pytest.mark.parametrize(
    ("features", "method", "message"),
    [
        (np.zeros((2, 12), np.float32), "sign", "multiple of 8"),
        (np.zeros((2, 0), np.float32), "sign", "multiple of 8"),
        (np.zeros(16, np.float32), "sign", "matrix"),
        (np.zeros((2, 16), np.int64), "sign", "float"),
        (np.zeros((2, 16), np.float32), "median", "'sign' or 'round'"),
    ],
)
def test_refuses_what_is_no_feature_matrix(features: np.ndarray, method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_bits(features, method)
