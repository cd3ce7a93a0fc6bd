"""The configuration of a detector: read strictly, every mistake with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from models.training.config import ConfigError
from models.training.config_file import load_config
from models.training.detection.config import BoxPhotos, ComposedScenes, DetectionConfig, LossWeights

SHIPPED = Path(__file__).parents[3] / "models" / "configs" / "Detection"


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "detector.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


def test_the_shipped_file_is_read() -> None:
    config = load_config(SHIPPED / "starter_detector.yaml")
    assert isinstance(config, DetectionConfig)
    assert config.image_shape == (320, 320)
    assert config.loss == LossWeights(1.0, 2.0, 0.25)
    assert [type(source) for source in config.sources] == [ComposedScenes, BoxPhotos]
    assert [stage.first_block for stage in config.stages] == [2, 0]
    assert config.ema_decay == 0.998
    assert config.notes == ()


def test_the_file_for_own_photos_starts_from_the_starter() -> None:
    config = load_config(SHIPPED / "own_boxes.yaml")
    assert isinstance(config, DetectionConfig)
    assert config.pretrained == "models/starter/detector"
    assert config.evaluated == BoxPhotos(Path("photos/held_out.jsonl"), Path("photos"))


def test_defaults_are_picodets(tmp_path: Path, content: dict[str, Any]) -> None:
    config = load_config(write(tmp_path, content))
    assert isinstance(config, DetectionConfig)
    assert config.loss == LossWeights()
    assert config.pretrained is False
    assert config.evaluated == BoxPhotos(tmp_path / "boxes.jsonl", tmp_path)


def test_losses_that_are_left_out_have_no_weight(tmp_path: Path, content: dict[str, Any]) -> None:
    content["Loss"] = {"Train": [{"QualityFocalLoss": {}}, {"GIoULoss": {"weight": 3}}]}
    config = load_config(write(tmp_path, content))
    assert isinstance(config, DetectionConfig)
    assert config.loss == LossWeights(1.0, 3.0, 0.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["Arch.bin=9"], "-o Arch.bin: is not a key of Arch; did you mean bins?"),
        (["Arch.class_num=80"], "-o Arch.class_num: 80 cannot be honoured: main bodies are one class"),
        (["Global.image_shape=[3,300,320]"], "-o Global.image_shape: must have sides that are multiples of 64"),
        (["Loss.Train=[CELoss: {}]"], "no loss of a detector is called CELoss"),
        (["DataLoader.Train.dataset.0.name=BoxFotos"], "did you mean BoxPhotos?"),
        (["DataLoader.Train.dataset.0.share=0"], "must be a number above 0"),
        (["DataLoader.Train.epoch_pictures=0"], "must be a whole number of at least 1"),
        (["DataLoader.Eval.dataset={name: ComposedScenes, cutouts: a, photos: b}"], "must be BoxPhotos"),
        (["Stages.0.first_blok=1"], "did you mean first_block?"),
        (["Metric={}"], "-o Metric: is not a key"),
    ],
    ids=lambda value: value[0].partition("=")[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_named(tmp_path: Path, content: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, content), overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("section", ["Global", "DataLoader"])
def test_what_is_missing_is_named(tmp_path: Path, content: dict[str, Any], section: str) -> None:
    del content[section]
    with pytest.raises(ConfigError, match=rf"{section}: is missing: models/configs/Detection"):
        load_config(write(tmp_path, content))


def test_keys_of_a_source_are_asked_for(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["DataLoader"]["Train"]["dataset"][0]["boxes_path"]
    del content["Global"]["image_shape"]
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, content))
    assert "DataLoader.Train.dataset.0.boxes_path: is missing" in str(caught.value)
    assert "Global.image_shape: is missing" in str(caught.value)
