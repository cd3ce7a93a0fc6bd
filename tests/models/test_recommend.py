"""The recommended radius, on codes laid out so that it can be read off."""

import numpy as np

from models.recommend import open_set_errors, recommend_radius


def code(*bits: int) -> np.ndarray:
    """Of 16 bits, these set."""
    flags = np.zeros(16, np.uint8)
    flags[list(bits)] = 1
    return np.packbits(flags)


def test_radius_separates_classes() -> None:
    # Two classes whose members differ in 2 bits, 8 bits from each other at the nearest; one picture is alone.
    codes = np.stack([code(0, 1), code(0, 2), code(*range(7, 15)), code(*range(7, 14), 15), code(*range(16))])
    labels = np.array(["a", "a", "b", "b", "alone"])
    misses, accepts = open_set_errors(codes, labels)
    assert misses.shape == accepts.shape == (17,)
    assert misses.tolist()[:4] == [1.0, 1.0, 0.0, 0.0]
    # b and the lonely one are 8 apart; a is 10 from b and 14 from the lonely one
    assert accepts.tolist()[7:11] == [0.0, 0.6, 0.6, 1.0]
    assert recommend_radius(misses, accepts) == 2


def test_radius_balances_the_errors_of_classes_that_overlap() -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2, (20, 64))
    members = np.repeat(centres, 5, axis=0) ^ (rng.random((100, 64)) < 0.2)
    misses, accepts = open_set_errors(np.packbits(members, axis=1), np.repeat(np.arange(20), 5).astype(str))
    radius = recommend_radius(misses, accepts)
    assert (np.diff(misses) <= 0).all()
    assert (np.diff(accepts) >= 0).all()
    assert max(misses[radius], accepts[radius]) <= min(
        max(misses[other], accepts[other]) for other in (radius - 1, radius + 1)
    )
