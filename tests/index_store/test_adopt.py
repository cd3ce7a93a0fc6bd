"""Adopting: a caller's word for the model of a gallery that does not know it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from index_store import UNKNOWN_FINGERPRINT, FingerprintMismatch, InvalidQuery, Item, open_gallery


def make(folder: Path, fingerprint: str | None, rng: random.Random, count: int = 20) -> list[Item]:
    with open_gallery(folder, 64, fingerprint=fingerprint) as store:
        return store.add([Item(None, "x", rng.randbytes(8)) for _ in range(count)])


@pytest.mark.parametrize("stored", [None, UNKNOWN_FINGERPRINT])
def test_an_unknown_model_is_adopted_once_and_for_good(
    folder: Path, tools, rng: random.Random, stored: str | None
) -> None:
    items = make(folder, stored, rng)
    with pytest.raises(FingerprintMismatch) as caught:
        open_gallery(folder, 64, fingerprint="m1")
    assert caught.value.adoptable
    oracle = tools.Oracle()
    oracle.put(*items)
    with open_gallery(folder, 64, fingerprint="m1", adopt=True) as store:
        assert store.fingerprint == "m1"
        oracle.check(store, [rng.randbytes(8)])
    with open_gallery(folder, 64, fingerprint="m1") as store:
        assert store.stats().model_fingerprint == "m1"
        oracle.check(store, [rng.randbytes(8)])
    with pytest.raises(FingerprintMismatch) as caught:
        open_gallery(folder, 64, fingerprint=UNKNOWN_FINGERPRINT)
    assert not caught.value.adoptable


@pytest.mark.parametrize(("bits", "fingerprint"), [(64, "m2"), (128, "m1"), (128, "m2")])
def test_another_model_or_other_bits_are_refused_as_ever(
    folder: Path, rng: random.Random, bits: int, fingerprint: str
) -> None:
    make(folder, "m1", rng)
    with pytest.raises(FingerprintMismatch):
        open_gallery(folder, bits, fingerprint=fingerprint, adopt=True)
    with open_gallery(folder, 64, fingerprint="m1") as store:
        assert len(store) == 20


def test_unknown_codes_of_other_bits_are_refused(folder: Path, rng: random.Random) -> None:
    make(folder, UNKNOWN_FINGERPRINT, rng)
    with pytest.raises(FingerprintMismatch) as caught:
        open_gallery(folder, 128, fingerprint="m1", adopt=True)
    assert not caught.value.adoptable
    with open_gallery(folder) as store:
        assert (store.bits, store.fingerprint) == (64, UNKNOWN_FINGERPRINT)


def test_a_gallery_of_the_model_and_a_new_one_need_no_adopting(folder: Path) -> None:
    for _ in range(2):
        with open_gallery(folder, 64, fingerprint="m1", adopt=True) as store:
            assert store.fingerprint == "m1"


@pytest.mark.parametrize(("bits", "fingerprint"), [(None, "m1"), (64, None), (64, UNKNOWN_FINGERPRINT)])
def test_a_word_needs_bits_and_a_model(
    folder: Path, rng: random.Random, bits: int | None, fingerprint: str | None
) -> None:
    make(folder, UNKNOWN_FINGERPRINT, rng)
    with pytest.raises(InvalidQuery, match="to adopt"):
        open_gallery(folder, bits, fingerprint=fingerprint, adopt=True)


def test_a_snapshot_of_before_does_no_harm(folder: Path, tools, rng: random.Random) -> None:
    oracle = tools.Oracle()
    with open_gallery(folder, 64, fingerprint=UNKNOWN_FINGERPRINT) as store:
        oracle.put(*store.add([Item(None, "x", rng.randbytes(8)) for _ in range(50)]))
        store.snapshot()
        oracle.put(*store.add([Item(None, "y", rng.randbytes(8)) for _ in range(5)]))
    with open_gallery(folder, 64, fingerprint="m1", adopt=True) as store:
        oracle.check(store, [rng.randbytes(8)])
