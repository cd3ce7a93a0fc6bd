"""Training from a configuration: a small real run, killed and resumed, then exported and served."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from models.inference import Hasher, Preprocessing
from models.training.checkpoint import load_checkpoint
from models.training.config import ConfigError, load_config
from models.training.datasets import DatasetError, batches, load_datasets

PATTERNS = {"stripes": (1, 12), "columns": (12, 1), "checks": (6, 6)}


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn classes, 16 bits, 32 pixels: seconds of training."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    lines = []
    for name, (rows, columns) in PATTERNS.items():
        y, x = np.mgrid[:48, :48]
        for number in range(16):
            pattern = ((y // rows + x // columns) % 2)[:, :, None] * rng.integers(120, 256, 3)
            cv2.imwrite(str(folder / f"{name}{number}.png"), pattern + rng.integers(0, 20, (48, 48, 3)))
            lines.append(f"{name}{number}.png\t{name}")
    (folder / "train.txt").write_text("\n".join(lines), "utf-8")
    features = rng.standard_normal((48, 6))
    np.savez(
        folder / "teacher.npz",
        path=[line.split("\t")[0] for line in lines],
        features=features / np.linalg.norm(features, axis=1, keepdims=True),
    )
    content = {
        "Global": {"name": "patterns", "seed": 3, "output_dir": str(folder / "out")},
        "Arch": {
            "Backbone": {"name": "MobileNetV1", "class_num": 16, "pooled_blocks": [5, 13]},
            "Neck": {"name": "Tanh"},
            "Head": {"name": "CosMargin", "embedding_size": 16, "class_num": "auto"},
        },
        "Loss": {"Train": [{"CELoss": {}}, {"SimilarityPreservingLoss": {"weight": 0.1}}]},
        "Stages": [
            {"name": "upper", "first_block": 4, "epochs": 3, "batch_size": 12, "learning_rate": 0.002},
            {"name": "whole", "first_block": 0, "epochs": 1, "batch_size": 12, "learning_rate": 0.001},
        ],
        "DataLoader": {
            "Train": {
                "dataset": [
                    {
                        "image_root": str(folder),
                        "cls_label_path": str(folder / "train.txt"),
                        "teacher": str(folder / "teacher.npz"),
                    }
                ],
                "transform_ops": [
                    {"ResizeImage": {"size": 32}},
                    {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
                ],
            }
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def run(module: str, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", module, "-c", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def trained(config_path: Path) -> Path:
    """Output folder of one run from start to end."""
    done = run("models.train", config_path)
    assert done.returncode == 0, done.stderr
    return config_path.parent / "out"


def test_the_loss_falls(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "train.jsonl").read_text("utf-8").splitlines()]
    assert [record["step"] for record in log] == [*range(1, 13), *range(1, 5)]
    assert {"loss", "accuracy", "lr", "CELoss", "SimilarityPreservingLoss", "epoch", "stage"} <= log[0].keys()
    assert log[-1]["CELoss"] < 0.8 * log[0]["CELoss"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_weights(config_path: Path, trained: Path, tmp_path: Path, how: int) -> None:
    out = tmp_path / "out"
    arguments = ["-o", f"Global.output_dir={out}", "-o", "Global.save_interval_s=0"]
    command = [sys.executable, "-W", "ignore", "-m", "models.train", "-c", str(config_path), *arguments, "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "train.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text("utf-8").count("\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(60)
    assert not (out / "final.pdparams").exists()
    resumed = run("models.train", config_path, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    expected, actual = load_checkpoint(trained / "final.pdparams"), load_checkpoint(out / "final.pdparams")
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_export_gives_a_model_folder(config_path: Path, trained: Path) -> None:
    done = run("models.export", config_path, "--hamming-radius", "5")
    assert done.returncode == 0, done.stderr
    hasher = Hasher.load(trained / "export", "cpu")
    assert (hasher.bits, hasher.recommended_radius) == (16, 5)
    # Exported again it is the same model, and what lies beside it stays.
    (trained / "export" / "README.md").write_text("a card", "utf-8")
    assert run("models.export", config_path).returncode == 0
    again = Hasher.load(trained / "export", "cpu")
    assert again.fingerprint == hasher.fingerprint
    assert (trained / "export" / "README.md").read_text("utf-8") == "a card"
    # For another input size it is another model.
    assert run("models.export", config_path, "-o", "Global.image_shape=[3, 48, 48]").returncode == 0
    larger = Hasher.load(trained / "export", "cpu")
    assert "48 x 48" in larger.describe()
    assert larger.fingerprint != hasher.fingerprint


def test_batches_start_anywhere(config_path: Path) -> None:
    config = load_config(config_path)
    dataset = load_datasets(config.datasets)
    preprocessing = Preprocessing(size=(32, 32))
    everything = list(batches(dataset, preprocessing, 10, (1, 2)))
    assert len(everything) == 4
    for whole, part in zip(everything[2:], batches(dataset, preprocessing, 10, (1, 2), start=2), strict=True):
        np.testing.assert_array_equal(whole.views, part.views)
        np.testing.assert_array_equal(whole.labels, part.labels)
    other = next(batches(dataset, preprocessing, 10, (1, 3)))
    assert not np.array_equal(other.labels, everything[0].labels)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Global.colour=red", "Global.colour"),
        ("Colour=red", "Colour"),
        ("Arch.name=ClsModel", "RecModel"),
        ("Stages.0.batchsize=3", "batchsize"),
        ("Global.image_shape=[256, 256]", "image_shape"),
        ("Stages.7.epochs=3", "Stages.7.epochs"),
        ("Loss.Train=[3]", "Loss.Train"),
        ("Global=3", "Global"),
        ("nothing", "key.key=value"),
    ],
)
def test_configuration_errors_name_the_key(config_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config_path, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Loss.Train=[{TripletLoss: {}}]", "TripletLoss"),
        ("Loss.Train=[{CELoss: {temperature: 2}}]", "temperature"),
        ("Arch.Backbone.name=ResNet9000", "ResNet9000"),
        ("Stages.0.batch_size=100", "Stages.0.batch_size"),
        ("DataLoader.Train.dataset=[{image_root: /nowhere, cls_label_path: /nowhere/list.txt}]", "list.txt"),
    ],
)
def test_unusable_values_end_with_one_line(config_path: Path, tmp_path: Path, override: str, message: str) -> None:
    done = run("models.train", config_path, "-o", f"Global.output_dir={tmp_path}", "-o", override)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_pictures_are_counted(config_path: Path) -> None:
    source: dict[str, Any] = dict(load_config(config_path).datasets[0]) | {"image_root": "/nowhere"}
    with pytest.raises(DatasetError, match="48 listed pictures are missing"):
        load_datasets([source])
