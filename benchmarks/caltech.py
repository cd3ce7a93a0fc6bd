"""Do pictures unlike the training data suffer?

Twelve classes of Caltech-101 are left out of training. Every photo of them is searched among the others.
"""

from __future__ import annotations

import sys
import time

from common import baselines, datasets, hashing, options, tables
from common.retrieval import hamming_similarity, inner_product, leave_one_out


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_hasher(arguments)
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    data = options.shared_data(chosen, "caltech.tar", "teacher/caltech.npz")
    photos = datasets.caltech_held_out(data)
    labels = datasets.labels_of(photos)
    rows = []

    started = time.perf_counter()
    histograms = baselines.colour_histograms(photos)
    found = leave_one_out(inner_product(histograms, histograms), labels)
    rows.append(("HSV histograms, 2x2 grid", baselines.HISTOGRAM_BYTES, found, time.perf_counter() - started))

    started = time.perf_counter()
    features = baselines.unit(datasets.embeddings(data / "teacher" / "caltech.npz", photos))
    found = leave_one_out(inner_product(features, features), labels)
    rows.append(("ImageNet MobileNet, float32 (given)", features.shape[1] * 4, found, time.perf_counter() - started))

    started = time.perf_counter()
    codes = baselines.centred_sign(features, features)
    found = leave_one_out(hamming_similarity(codes, codes), labels)
    rows.append(("ImageNet MobileNet, sign (given)", codes.shape[1], found, time.perf_counter() - started))

    hasher = hashing.load(chosen.hasher)
    started = time.perf_counter()
    codes = hashing.codes(hasher, photos)
    found = leave_one_out(hamming_similarity(codes, codes), labels)
    rows.append((f"starter hasher, {hasher.bits} bit", codes.shape[1], found, time.perf_counter() - started))

    tables.show(
        f"Caltech-101: {len(photos)} photos of {len(set(labels))} classes that training never saw, leave-one-out",
        ["method", "bytes/item", "top-1", "mAP", "seconds"],
        [[name, f"{size:,}", f"{q.top1:.3f}", f"{q.mean_ap:.3f}", f"{took:.1f}"] for name, size, q, took in rows],
        [f"Classes: {', '.join(sorted(set(labels)))}."],
        markdown=chosen.markdown,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
