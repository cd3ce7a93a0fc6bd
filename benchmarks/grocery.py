"""How often is the best match of the same class, on groceries photographed in shops?

GroceryStoreDataset: every validation photo is searched among the training photos (81 classes).
"""

from __future__ import annotations

import sys
import time

from common import baselines, datasets, hashing, options, tables
from common.retrieval import hamming_similarity, inner_product, queries_in_gallery


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    data = options.shared_data(chosen, "grocery.tar", "teacher/grocery.npz")
    gallery, queries = datasets.grocery(data)
    labels = datasets.labels_of(queries), datasets.labels_of(gallery)
    rows = []

    started = time.perf_counter()
    found = queries_in_gallery(
        inner_product(baselines.colour_histograms(queries), baselines.colour_histograms(gallery)), *labels
    )
    rows.append(("HSV histograms, 2x2 grid", baselines.HISTOGRAM_BYTES, found, time.perf_counter() - started))

    started = time.perf_counter()
    asked, kept = (
        baselines.unit(datasets.embeddings(data / "teacher" / "grocery.npz", photos)) for photos in (queries, gallery)
    )
    found = queries_in_gallery(inner_product(asked, kept), *labels)
    rows.append(("ImageNet MobileNet, float32 (given)", kept.shape[1] * 4, found, time.perf_counter() - started))

    started = time.perf_counter()
    codes = baselines.centred_sign(kept, kept)
    found = queries_in_gallery(hamming_similarity(baselines.centred_sign(asked, kept), codes), *labels)
    rows.append(("ImageNet MobileNet, sign (given)", codes.shape[1], found, time.perf_counter() - started))

    hasher = hashing.load(chosen.hasher)
    started = time.perf_counter()
    codes = hashing.codes(hasher, gallery)
    found = queries_in_gallery(hamming_similarity(hashing.codes(hasher, queries), codes), *labels)
    rows.append((f"starter hasher, {hasher.bits} bit", codes.shape[1], found, time.perf_counter() - started))

    tables.show(
        f"Groceries: {len(queries)} validation photos in a gallery of {len(gallery)}, by class",
        ["method", "bytes/item", "top-1", "mAP", "seconds"],
        [[name, f"{size:,}", f"{q.top1:.3f}", f"{q.mean_ap:.3f}", f"{took:.1f}"] for name, size, q, took in rows],
        ["The sign of MobileNet is taken about the mean over the gallery (1,024 bits)."],
        markdown=chosen.markdown,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
