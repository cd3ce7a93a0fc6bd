"""A small set for detectors: drawn photos with boxes, cutouts, and a configuration over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

SIDE = 128


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folder with ``boxes.jsonl`` of eight photos, ``photos.txt``, and ``cutouts/`` of two groups."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(8):
        pixels = rng.integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
        x, y = rng.integers(5, 50, 2)
        width, height = rng.integers(40, 70, 2)
        pixels[y : y + height, x : x + width] = rng.integers(0, 255, 3)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        box = [int(x), int(y), int(x + width), int(y + height)]
        lines.append(json.dumps({"image": f"{number}.png", "boxes": [box]}))
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "photos.txt").write_text("".join(f"{number}.png\n" for number in range(8)), "utf-8")
    for group, (height, width) in {"tall": (80, 30), "wide": (40, 90)}.items():
        folder = tmp_path / "cutouts" / group
        folder.mkdir(parents=True)
        for number in range(2):
            cutout = np.full((height, width, 4), 255, np.uint8)
            cutout[..., :3] = rng.integers(0, 255, 3)
            cutout[:5, :5, 3] = 0
            PIL.Image.fromarray(cutout).save(folder / f"{number}.png")
    return tmp_path


@pytest.fixture
def content(pictures: Path) -> dict[str, Any]:
    """A configuration of two stages, of three steps and one."""
    photos = {"name": "BoxPhotos", "image_root": str(pictures), "boxes_path": str(pictures / "boxes.jsonl")}
    scenes = {
        "name": "ComposedScenes",
        "cutouts": str(pictures / "cutouts"),
        "photos": str(pictures / "photos.txt"),
        "share": 2,
    }
    return {
        "Global": {
            "name": "small",
            "output_dir": str(pictures / "out"),
            "image_shape": [3, 64, 64],
            "save_interval_s": 1000,
            "eval_interval": 2,
        },
        "Arch": {"name": "PicoDetS"},
        "Optimizer": {"name": "AdamW", "lr": {"name": "Constant", "learning_rate": 0.001}},
        "EMA": {"decay": 0.9},
        "Stages": [
            {"name": "upper", "first_block": 2, "epochs": 1.5, "batch_size": 4},
            {"name": "whole", "epochs": 0.5, "batch_size": 4},
        ],
        "DataLoader": {
            "Train": {"epoch_pictures": 8, "dataset": [photos, scenes]},
            "Eval": {"dataset": photos},
        },
    }


@pytest.fixture
def config_path(pictures: Path, content: dict[str, Any]) -> Path:
    path = pictures / "small.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path
