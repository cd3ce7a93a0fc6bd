"""What tests of several parts of the training use."""

from pathlib import Path

import cv2
import numpy as np

PATTERNS = {"stripes": (1, 12), "columns": (12, 1), "checks": (6, 6)}
PICTURES_A_CLASS = 16


def draw_patterns(folder: Path) -> None:
    """Three drawn classes: ``train.txt``, ``query.txt`` and their pictures."""
    rng = np.random.default_rng(0)
    lines = []
    for name, (rows, columns) in PATTERNS.items():
        y, x = np.mgrid[:48, :48]
        for number in range(PICTURES_A_CLASS):
            pattern = ((y // rows + x // columns) % 2)[:, :, None] * rng.integers(120, 256, 3)
            cv2.imwrite(str(folder / f"{name}{number}.png"), pattern + rng.integers(0, 20, (48, 48, 3)))
            lines.append(f"{name}{number}.png\t{name}")
    (folder / "train.txt").write_text("\n".join(lines), "utf-8")
    (folder / "query.txt").write_text("\n".join(lines[::4]), "utf-8")
    features = rng.standard_normal((len(lines), 6))
    np.savez(
        folder / "teacher.npz",
        path=[line.split("\t")[0] for line in lines],
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
    )
