"""The bundled detector: what ships, what it was made of, and that it finds objects in photos it never saw."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from models.inference import STARTER_DETECTOR, Detector
from models.training.config_file import load_config
from models.training.data.pictures import read_rgb
from models.training.detection.detector import build_detector
from models.training.detection.metrics import detection_metrics
from models.training.detection.pretrained import from_layers, read_export
from models.training.pretrained import load_pretrained

MAX_BYTES = 6 * 2**20
PHOTOS = 200


def test_it_is_small_and_described() -> None:
    assert sum(path.stat().st_size for path in STARTER_DETECTOR.iterdir()) <= MAX_BYTES
    card = (STARTER_DETECTOR / "README.md").read_text("utf-8")
    for needed in ("Apache-2.0", "MIT", "CC BY 4.0", "make starter-detector", "Limits"):
        assert needed in card


def test_every_layer_was_trained_on(shared: Path) -> None:
    config = load_config(Path(__file__).parents[2] / "models" / "configs" / "Detection" / "starter_detector.yaml")
    network = build_detector(config)
    shipped = read_export(network, STARTER_DETECTOR)
    coco = load_pretrained("PicoDetS", str(shared / "data" / "pretrained" / "picodet_s_416_coco.npz"))
    initial = from_layers(network, coco, "coco")
    assert shipped.keys() == initial.keys() == dict(network.named_parameters()).keys()
    for name, value in shipped.items():
        assert np.abs(value - initial[name]).max() > 1e-5, f"{name} is still what training began with"


@pytest.fixture(scope="module")
def supermarket(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, np.ndarray]]:
    """Every seventh of 1,500 photos that no training saw, with the boxes drawn around their objects."""
    folder = tmp_path_factory.mktemp("supermarket")
    with tarfile.open(shared / "data" / "freiburg_boxes.tar") as tar:
        lines = tar.extractfile("boxes.jsonl")
        assert lines is not None
        rows = [json.loads(line) for line in lines.read().decode("utf-8").splitlines()][::7][:PHOTOS]
        for row in rows:
            tar.extract(row["image"], folder, filter="data")
    return [
        (folder / row["image"], np.float32([box for box in row["boxes"] if box[2] > box[0] and box[3] > box[1]]))
        for row in rows
    ]


def test_it_finds_objects_in_photos_it_never_saw(supermarket: list[tuple[Path, np.ndarray]]) -> None:
    detector = Detector.load(STARTER_DETECTOR, "cpu")
    found = [detector.detect(read_rgb(path), 0.03, 10) for path, _ in supermarket]
    figures = detection_metrics(found, [boxes for _, boxes in supermarket])
    assert len(supermarket) == PHOTOS
    assert figures["hit@1"] >= 0.75
    assert figures["hit@5"] >= 0.93
    assert figures["AP"] >= 0.65
