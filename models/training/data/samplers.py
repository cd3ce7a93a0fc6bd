"""Which pictures make which batch: everything drawn from the seed, so that an epoch can be drawn again anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..config import ConfigError, Sampler
from .errors import DatasetError

Indexes = npt.NDArray[np.int64]


def epoch_batches(
    sampler: Sampler, labels: Indexes, seed: tuple[int, ...], rank: int = 0, world: int = 1
) -> list[Indexes]:
    """Draw one epoch's batches of one device.

    The batches that all ranks take in one step, put one after the other in the order of the ranks, are the batch that
    one device with ``world`` times the batch size would take. Every rank takes equally many steps.

    Args:
        sampler: ``BatchSampler`` and ``DistributedBatchSampler`` are the same here: all pictures once, in a random
            order if ``shuffle`` is set; without ``drop_last`` the last batch is what is left, filled up by fewer than
            ``world`` pictures from the beginning of the order so that it can be shared out equally. ``PKSampler``: in
            each batch ``batch_size / sample_per_id`` classes, drawn by their number of pictures, and of each
            ``sample_per_id`` pictures; only of smaller classes the same picture twice.
        labels: int64 (n,), a class a picture; -1 for none, which only PKSampler leaves out.
        seed: of the order, such as (seed, epoch).
        rank: number of the device.
        world: number of the devices.

    Returns:
        int64 (at most batch_size,) dataset indexes, one array a step.

    Raises:
        ConfigError: the sampler is not known, or its numbers do not go together.
        DatasetError: the pictures do not make one batch, or there are too few classes.
    """
    if sampler.name not in SAMPLERS:
        raise ConfigError(f"sampler: no sampler is called {sampler.name!r}; there are {', '.join(SAMPLERS)}")
    if sampler.batch_size < 1:
        raise ConfigError(f"sampler: batch_size must be positive, not {sampler.batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}")
    steps = SAMPLERS[sampler.name](sampler, labels, np.random.default_rng(seed), world)
    return [np.split(step, world)[rank] for step in steps]


def _in_turn(sampler: Sampler, labels: Indexes, rng: np.random.Generator, world: int) -> list[Indexes]:
    """All pictures once: int64 arrays, one a step for all ranks."""
    count, size = len(labels), sampler.batch_size * world
    order = rng.permutation(count) if sampler.shuffle else np.arange(count)
    whole = count // size * size
    steps = list(order[:whole].reshape(-1, size))
    if sampler.drop_last:
        if not steps:
            raise _too_few(count, "pictures", sampler, world)
    elif whole < count:
        rest = order[whole:]
        steps.append(np.concatenate([rest, np.resize(order, -len(rest) % world)]))
    return steps


def _by_class(sampler: Sampler, labels: Indexes, rng: np.random.Generator, world: int) -> list[Indexes]:
    """So many classes, of each so many pictures: int64 arrays, one a step for all ranks."""
    each, size = sampler.sample_per_id, sampler.batch_size * world
    if each is None or each < 1:
        raise ConfigError("sampler: PKSampler needs sample_per_id, the pictures of a class in a batch")
    if sampler.batch_size % each:
        raise ConfigError(f"sampler: batch_size {sampler.batch_size} is not divisible by sample_per_id {each}")
    order = np.argsort(labels, kind="stable")[(labels < 0).sum() :]  # without those that have no class
    _, starts = np.unique(labels[order], return_index=True)
    members = np.split(order, starts[1:]) if len(order) else []
    wanted = size // each
    if len(members) < wanted:
        raise DatasetError(
            f"PKSampler: {len(members)} classes have pictures, but a batch of {sampler.batch_size}"
            + (f" on {world} devices" if world > 1 else "")
            + f" with sample_per_id {each} needs {wanted}; lower batch_size or raise sample_per_id"
        )
    count = len(order) // size if sampler.drop_last else math.ceil(len(order) / size)
    if count == 0:
        raise _too_few(len(order), "pictures with a class", sampler, world)
    share = np.array([len(one) for one in members]) / len(order)
    steps = []
    for _ in range(count):
        classes = rng.choice(len(members), wanted, replace=False, p=share)
        drawn = [rng.choice(members[number], each, replace=len(members[number]) < each) for number in classes]
        steps.append(np.concatenate(drawn))
    return steps


def _too_few(count: int, what: str, sampler: Sampler, world: int) -> DatasetError:
    devices = f" on each of {world} devices" if world > 1 else ""
    return DatasetError(
        f"{count} {what} do not fill a batch of {sampler.batch_size}{devices}: lower sampler.batch_size, "
        "set sampler.drop_last to false, or give the dataset a higher repeat"
    )


SAMPLERS: Mapping[str, Callable[[Sampler, Indexes, np.random.Generator, int], list[Indexes]]] = MappingProxyType(
    {"BatchSampler": _in_turn, "DistributedBatchSampler": _in_turn, "PKSampler": _by_class}
)
"""How each sampler draws the steps of an epoch, for all ranks together."""
