"""The canary notices models that do not do what they did at the start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.inference import Hasher
from service.images import PictureDecoder
from service.readiness import Canary
from service.vision import Vision


class Turned:
    """A hasher that turns the first bits of every code after its first run."""

    def __init__(self, hasher: Hasher, turned_bits: int) -> None:
        self.bits = hasher.bits
        self._hasher = hasher
        self._mask = np.packbits(np.arange(hasher.bits) < turned_bits)
        self._runs = 0

    def hash(self, images: list[np.ndarray]) -> np.ndarray:
        self._runs += 1
        codes = self._hasher.hash(images)
        return codes if self._runs == 1 else codes ^ self._mask


@pytest.fixture(scope="module")
def hasher(make_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Hasher:
    return Hasher.load(make_settings(tmp_path_factory.mktemp("unused")).hasher_dir)


@pytest.mark.parametrize(("share", "well"), [(0.0, True), (0.02, True), (0.05, False), (0.5, False), (1.0, False)])
def test_another_code_than_at_the_start_is_noticed(hasher: Hasher, share: float, well: bool) -> None:
    turned: Any = Turned(hasher, int(share * hasher.bits))
    vision = Vision(PictureDecoder(10**6, 10**6), turned, None)
    canary = Canary()
    assert canary.run(vision)
    assert canary.run(vision) is well


def test_clones_pass(hasher: Hasher) -> None:
    vision = Vision(PictureDecoder(10**6, 10**6), hasher, None)
    canary = Canary()
    assert all(canary.run(each) for each in (vision, vision.clone(), vision))


def test_a_model_that_fails_raises(hasher: Hasher) -> None:
    class Broken:
        bits = hasher.bits

        def hash(self, _: object) -> None:
            raise RuntimeError("out of memory")

    broken: Any = Broken()
    with pytest.raises(RuntimeError):
        Canary().run(Vision(PictureDecoder(10**6, 10**6), broken, None))
