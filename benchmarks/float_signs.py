"""What does it cost to take the signs of a float model's features for codes, and within which radius?

On the float features that PP-ShiTu publishes with its drink gallery, each photo searched among all the others. A radius
misses when nothing of the photo's own product lies inside, and accepts when, with its own product taken away, anything
does; the recommended one is where both are equally frequent (``models.recommend``).
"""

from __future__ import annotations

import sys

import numpy as np
from common import options, tables
from common.retrieval import hamming_similarity, inner_product, leave_one_out

from models.inference import pack_bits
from models.recommend import open_set_errors, recommend_radius

DEFAULT_RADIUS = 100  # PP-ShiTu's, of 512 bits


def main() -> int:
    """Run the benchmark."""
    arguments = options.parser(__doc__)
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    file = options.shared_data(chosen, "drink/float_features.npz") / "drink" / "float_features.npz"
    with np.load(file, allow_pickle=False) as content:
        features, labels = content["features"].astype(np.float32), content["label"]
    codes = pack_bits(features)
    misses, accepts = open_set_errors(codes, labels)
    floats = leave_one_out(inner_product(features, features), labels)
    signs = leave_one_out(hamming_similarity(codes, codes), labels)
    rows = [["float32, inner product", f"{features.shape[1] * 4:,}", f"{floats.top1:.3f}", f"{floats.mean_ap:.3f}"]]
    rows[0] += ["", "", ""]
    for radius in (DEFAULT_RADIUS, recommend_radius(misses, accepts)):
        row = ["signs, Hamming distance", str(codes.shape[1]), f"{signs.top1:.3f}", f"{signs.mean_ap:.3f}"]
        rows.append([*row, str(radius), f"{misses[radius]:.3f}", f"{accepts[radius]:.3f}"])
    tables.show(
        f"Official float features of {len(labels)} drink photos, leave-one-out",
        ["512 features as", "bytes/item", "top-1", "mAP", "radius", "misses", "accepts"],
        rows,
        ["The second radius is where both errors are equally frequent, on these very photos."],
        markdown=chosen.markdown,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
