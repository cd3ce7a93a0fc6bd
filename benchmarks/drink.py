"""How often does a search find the right product in the drink gallery?

Enrols all readable photos of the PP-ShiTu drink gallery in a running service and searches each photo of the
odd-numbered products (no model here was trained on them) by whole picture among the others. "top-1" and "mAP" count
with the odd products alone in the gallery, "top-1, all" with the photos of the even ones beside them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import numpy as np
from common import baselines, datasets, options, serving, tables
from common.datasets import Photo
from common.retrieval import Floats, Quality, hamming_similarity, inner_product, leave_one_out, quality


@dataclass(frozen=True)
class Row:
    """One line of the table; ``encode_ms`` a photo is None where the features came from a file."""

    name: str
    bytes_per_item: int
    odd: Quality
    among_all: float
    encode_ms: float | None
    total_s: float

    def cells(self) -> list[str]:
        """The line as text."""
        encode = "given" if self.encode_ms is None else f"{self.encode_ms:.1f}"
        size = f"{self.bytes_per_item:,}"
        return [
            self.name,
            size,
            f"{self.odd.top1:.3f}",
            f"{self.odd.mean_ap:.3f}",
            f"{self.among_all:.3f}",
            encode,
            f"{self.total_s:.1f}",
        ]


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    data = options.shared_data(
        chosen, "drink/gallery/drink_label_all.txt", "drink/float_features.npz", "teacher/drink.npz"
    )
    photos = datasets.drink(data)
    odd = np.array([datasets.is_evaluation_product(photo) for photo in photos])
    rows = [_phash(photos, odd), _histograms(photos, odd)]
    started = time.perf_counter()
    mobilenet = baselines.unit(datasets.embeddings(data / "teacher" / "drink.npz", photos))
    rows.append(_given("ImageNet MobileNet, float32", mobilenet, odd, photos, started))
    rows.append(_mobilenet_sign(mobilenet, odd, photos))
    started = time.perf_counter()
    official = baselines.unit(datasets.embeddings(data / "drink" / "float_features.npz", photos))
    rows.append(_given("PP-ShiTu official, float32", official, odd, photos, started))
    starter, note = _service(photos, odd, chosen)
    rows.append(starter)
    tables.show(
        f"Drinks: {odd.sum()} photos of {len({p.label for p in photos if datasets.is_evaluation_product(p)})} "
        f"products, leave-one-out ({len(photos)} photos in all)",
        ["method", "bytes/item", "top-1", "mAP", "top-1, all", "encode ms/photo", "seconds"],
        [row.cells() for row in rows],
        [
            note,
            "The sign of MobileNet is taken about the mean over the gallery (1,024 bits).",
            "A class is a product folder.",
        ],
        markdown=chosen.markdown,
    )
    return 0


def _measure(similarity: Floats, odd: np.ndarray, photos: Sequence[Photo]) -> tuple[Quality, float]:
    """Quality with the odd products alone, and top-1 of the odd ones with all photos in the gallery."""
    labels = datasets.labels_of(photos)
    alone = leave_one_out(similarity[np.ix_(odd, odd)], labels[odd])
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    among_all = float(np.mean(labels[others[odd].argmax(axis=1)] == labels[odd]))
    return alone, among_all


def _phash(photos: Sequence[Photo], odd: np.ndarray) -> Row:
    started = time.perf_counter()
    codes = baselines.phash(photos)
    encoded = time.perf_counter() - started
    alone, among_all = _measure(hamming_similarity(codes, codes), odd, photos)
    took = time.perf_counter() - started
    return Row("pHash, 64 bit", baselines.PHASH_BYTES, alone, among_all, encoded / len(photos) * 1000, took)


def _histograms(photos: Sequence[Photo], odd: np.ndarray) -> Row:
    started = time.perf_counter()
    rows = baselines.colour_histograms(photos)
    encoded = time.perf_counter() - started
    alone, among_all = _measure(inner_product(rows, rows), odd, photos)
    took = time.perf_counter() - started
    return Row(
        "HSV histograms, 2x2 grid", baselines.HISTOGRAM_BYTES, alone, among_all, encoded / len(photos) * 1000, took
    )


def _given(name: str, features: Floats, odd: np.ndarray, photos: Sequence[Photo], started: float) -> Row:
    alone, among_all = _measure(inner_product(features, features), odd, photos)
    return Row(name, features.shape[1] * 4, alone, among_all, None, time.perf_counter() - started)


def _mobilenet_sign(features: Floats, odd: np.ndarray, photos: Sequence[Photo]) -> Row:
    """The two galleries have means of their own, and so other codes."""
    started = time.perf_counter()
    alone_codes = baselines.centred_sign(features, features[odd])
    all_codes = baselines.centred_sign(features, features)
    alone, _ = _measure(hamming_similarity(alone_codes, alone_codes), odd, photos)
    _, among_all = _measure(hamming_similarity(all_codes, all_codes), odd, photos)
    took = time.perf_counter() - started
    return Row("ImageNet MobileNet, sign", all_codes.shape[1], alone, among_all, None, took)


def _service(photos: Sequence[Photo], odd: np.ndarray, chosen: object) -> tuple[Row, str]:
    """The hash model through HTTP: first with the odd products enrolled, then with the even ones too."""
    mine = [photo for photo, is_odd in zip(photos, odd, strict=True) if is_odd]
    rest = [photo for photo, is_odd in zip(photos, odd, strict=True) if not is_odd]
    settings = serving.hasher_setting(getattr(chosen, "hasher", None))
    with (
        serving.service(settings) as process,
        httpx.Client(base_url=process.url, timeout=120, trust_env=False) as client,
    ):
        bits = int(serving.checked(client.get("/index"))["bits"])
        started = time.perf_counter()
        serving.enrol(client, mine)
        ranked = []
        for photo in mine:
            matches = serving.search(client, photo, radius=bits, top_k=len(mine))
            if len(matches) != len(mine) - 1:
                raise RuntimeError(f"{photo.path} ranked {len(matches)} of {len(mine) - 1} photos")
            ranked.append(np.array([match["label"] == photo.label for match in matches]))
        enrolling = time.perf_counter()
        serving.enrol(client, rest)
        enrolled = time.perf_counter() - enrolling
        times, hits = [], []
        for photo in mine:
            before = time.perf_counter()
            best = serving.search(client, photo, radius=bits, top_k=2)[0]
            times.append(time.perf_counter() - before)
            hits.append(best["label"] == photo.label)
        took = time.perf_counter() - started
    row = Row(
        f"starter hasher, {bits} bit, over HTTP",
        bits // 8,
        quality(ranked),
        float(np.mean(hits)),
        enrolled / len(rest) * 1000,
        took,
    )
    note = (
        f"The service enrolled {len(rest) / enrolled:.0f} photos a second in batches of 32 and answered a search "
        f"by picture in {np.median(times) * 1000:.1f} ms (median; JPEG decoding included)."
    )
    return row, note


if __name__ == "__main__":
    sys.exit(main())
