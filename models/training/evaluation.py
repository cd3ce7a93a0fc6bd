"""From pictures to retrieval metrics: encode queries and gallery, pack their codes, search, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from models.inference import Hasher, pack_bits

from .config import Config, ConfigError, LoaderConfig
from .data.datasets import Dataset, load_datasets
from .data.errors import DatasetError
from .data.loader import batches
from .data.transforms import Transforms
from .hamming_ranking import Codes
from .metrics import Evaluation, evaluate_codes

Encode = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
Progress = Callable[[str, int, int], None]
"""Called with what is encoded (``query`` or ``gallery``), how many pictures are done, and how many there are."""
EncodeDataset = Callable[[LoaderConfig, Dataset, Callable[[int], None]], Codes]

_HASHED_AT_ONCE = 32
_CACHE_BYTES = 256 << 20  # an evaluation reads its pictures once


def evaluate(
    config: Config, encode: Encode, query: Dataset, gallery: Dataset, progress: Progress | None = None
) -> Evaluation:
    """Measure how well a network's codes retrieve.

    Args:
        config: gives transforms, batch sizes, ranks and how features become bits. ``feature_normalize`` has no part
            in it: codes are made as the service makes them.
        encode: views float32 (B, 3, H, W) to features float32 (B, bits).
        query, gallery: the pictures of ``DataLoader.Eval``. Their classes are matched by name. Where both are the
            same pictures, each is searched among the others.
        progress: see :data:`Progress`.

    Raises:
        ConfigError: the configuration has no ``DataLoader.Eval``.
        DatasetError: a picture cannot be read, a query has no class, or the two share none.
        FloatingPointError: a feature is not finite.
    """
    match_labels(config, query, gallery)  # before hours of encoding
    codes = encode_both(config, network_encoder(config, encode), query, gallery, progress)
    return measure(config, *codes, query, gallery)


def encode_both(
    config: Config, encoder: EncodeDataset, query: Dataset, gallery: Dataset, progress: Progress | None = None
) -> tuple[Codes, Codes]:
    """Make the codes of queries and gallery, once where they are the same pictures: uint8 (n, b) and (m, b)."""
    parts = eval_loaders(config)
    if same_pictures(config, query, gallery):
        codes = encoder(parts[1], gallery, _report(progress, "gallery", gallery))
        return codes, codes
    return (
        encoder(parts[0], query, _report(progress, "query", query)),
        encoder(parts[1], gallery, _report(progress, "gallery", gallery)),
    )


def measure(config: Config, query_codes: Codes, gallery_codes: Codes, query: Dataset, gallery: Dataset) -> Evaluation:
    """Measure codes at the ranks that the configuration asks for.

    Equal distances rank by position, and lists are often sorted by class: then the first classes would win every tie,
    and a network that gives all pictures one code would do well on their queries. So the gallery is shuffled, always
    in the same way.

    Raises:
        DatasetError: see :func:`match_labels`.
    """
    wanted, labels = match_labels(config, query, gallery)
    alone = same_pictures(config, query, gallery)
    order = np.random.default_rng(0).permutation(len(gallery))
    if alone:  # a query is left out of the gallery by its position
        query_codes, wanted = query_codes[order], wanted[order]
    return evaluate_codes(
        query_codes,
        gallery_codes[order],
        wanted,
        labels[order],
        recall_topk=config.metrics.recall_topk,
        precision_topk=config.metrics.precision_topk,
        exclude_self=alone,
    )


def network_encoder(config: Config, encode: Encode) -> EncodeDataset:
    """Make codes with a network in training: the configuration's transforms without randomness, then its signs."""

    def encode_dataset(part: LoaderConfig, dataset: Dataset, done: Callable[[int], None]) -> Codes:
        drawn = batches(
            dataset,
            Transforms.from_ops(part.transform_ops),
            [np.array(chunk, np.int64) for chunk in _chunks(len(dataset), part.sampler.batch_size)],
            seed=None,
            workers=part.num_workers,
        )
        codes = []
        for batch in drawn:
            features = encode(batch.views)
            broken = ~np.isfinite(features).all(axis=1)
            if broken.any():
                where = dataset.where(int(batch.indexes[broken][0]))
                raise FloatingPointError(f"{where}: the network's features are not finite; its weights are broken")
            codes.append(pack_bits(features, config.binarize))
            done(int(batch.indexes[-1]) + 1)
        return np.concatenate(codes)

    return encode_dataset


def hasher_encoder(hasher: Hasher) -> EncodeDataset:
    """Make codes with an exported model, which does its own preprocessing; of the configuration only threads count."""

    def encode_dataset(part: LoaderConfig, dataset: Dataset, done: Callable[[int], None]) -> Codes:
        codes = []
        with ThreadPoolExecutor(max(1, part.num_workers), thread_name_prefix="read") as pool:
            for indexes in _chunks(len(dataset), _HASHED_AT_ONCE):
                codes.append(hasher.hash(list(pool.map(dataset.read, indexes))))
                done(indexes.stop)
        return np.concatenate(codes)

    return encode_dataset


def eval_loaders(config: Config) -> tuple[LoaderConfig, LoaderConfig]:
    """Give the loaders of queries and gallery.

    Raises:
        ConfigError: the configuration lacks one.
    """
    if config.query is None or config.gallery is None:
        raise ConfigError(
            "DataLoader.Eval.Query and DataLoader.Eval.Gallery say what to evaluate on, and one is missing"
        )
    return config.query, config.gallery


def open_evaluated(config: Config) -> tuple[Dataset, Dataset]:
    """Open queries and gallery, once where they are the same pictures.

    Raises:
        ConfigError: the configuration has no ``DataLoader.Eval``, or one that cannot be used.
        DatasetError: something is missing or not as described.
    """
    # Retrieval may be measured on classes that training never saw, so they are matched by name and not numbered.
    parts = eval_loaders(config)
    gallery = load_datasets(parts[1].datasets, cache_bytes=_CACHE_BYTES)
    if parts[0].datasets == parts[1].datasets:
        return gallery, gallery
    return load_datasets(parts[0].datasets, cache_bytes=_CACHE_BYTES), gallery


def evaluated_size(config: Config) -> tuple[int, int]:
    """Give the (height, width) of the pictures that are evaluated.

    Raises:
        ConfigError: queries and gallery have different ones.
    """
    sizes = [Transforms.from_ops(part.transform_ops).size for part in eval_loaders(config)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"DataLoader.Eval: queries are of {list(sizes[0])}, and the gallery of {list(sizes[1])}")
    return sizes[0]


def match_labels(
    config: Config, query: Dataset, gallery: Dataset
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number the classes of queries and gallery alike, by name.

    Returns:
        int64 (n,) and (m,); -1 for a gallery picture without a class, which no query finds rightly.

    Raises:
        ConfigError: the configuration has no ``DataLoader.Eval``.
        DatasetError: a query has no class, or no query has another picture of its class in the gallery.
    """
    if len(unlabelled := np.flatnonzero(query.labels < 0)):
        raise DatasetError(
            f"{query.where(int(unlabelled[0]))}: a query needs a class; {len(unlabelled)} of {len(query)} have none"
        )
    ids: dict[str, int] = {}
    numbers = []
    for data in (query, gallery):
        by_label = np.array([ids.setdefault(name, len(ids)) for name in data.class_names] + [-1], np.int64)
        numbers.append(by_label[data.labels])  # -1 takes the last
    wanted, offered = numbers
    found = np.bincount(offered[offered >= 0], minlength=len(ids))[wanted]
    if found.max() <= same_pictures(config, query, gallery):  # then the one that is found is the query itself
        raise DatasetError(
            "no query has another picture of its class in the gallery: queries are of "
            f"{_some_names(query)}; the gallery is of {_some_names(gallery)}"
        )
    return wanted, offered


def same_pictures(config: Config, query: Dataset, gallery: Dataset) -> bool:
    """Say whether every query is its own nearest gallery picture, because both are one list."""
    if query is gallery:
        return True
    parts = eval_loaders(config)
    return parts[0].datasets == parts[1].datasets and len(query) == len(gallery)


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _some_names(data: Dataset) -> str:
    names = [data.class_names[label] for label in np.unique(data.labels[data.labels >= 0])[:4]]
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])]) or "no class"


def _report(progress: Progress | None, name: str, dataset: Dataset) -> Callable[[int], None]:
    return (lambda done: None) if progress is None else (lambda done: progress(name, done, len(dataset)))
