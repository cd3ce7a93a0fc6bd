"""``--check``: what would fail is found before the first step, and what would run is shown."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml
from rich.console import Console

from models.training.check import check
from models.training.check_report import learning_rates
from models.training.checkpoint import save_checkpoint, to_weights
from models.training.config import ConfigError, OptimizerConfig, Schedule, Stage
from models.training.config_file import load_config
from models.training.model import build_model

CLASSES, EACH, SIDE = 3, 8, 32


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of eight pictures, one list for training and one for queries and gallery."""
    rng = np.random.default_rng(5)
    lines = []
    for label in range(CLASSES):
        for number in range(EACH):
            name = f"{label}_{number}.png"
            cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (40, 40, 3), np.uint8))
            lines.append(f"{name} {label}")
    (tmp_path / "train.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "val.txt").write_text("\n".join(lines[::2]), "utf-8")
    return tmp_path


@pytest.fixture
def config_path(data: Path) -> Path:
    ops = [{"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3}}]
    evaluated = {
        "dataset": {
            "image_root": str(data),
            "cls_label_path": str(data / "val.txt"),
            "transform_ops": [{"ResizeImage": {"size": SIDE}}, *ops],
        }
    }
    content = {
        "Global": {"name": "tiny", "output_dir": str(data / "out"), "epochs": 6, "device": "cpu", "eval_interval": 2},
        "Arch": {
            "Backbone": {"name": "MobileNetV1", "class_num": 16},
            "Neck": {"name": "Tanh"},
            "Head": {"name": "FC", "embedding_size": 16, "class_num": CLASSES},
        },
        "Loss": {"Train": [{"CELoss": {"epsilon": 0.1}}, {"LCDSHLoss": {"weight": 0.5, "n_class": 3, "_lambda": 3}}]},
        "Optimizer": {
            "name": "Momentum",
            "lr": {"name": "Cosine", "learning_rate": 0.05, "warmup_epoch": 1},
            "regularizer": {"name": "L2", "coeff": 1e-5},
        },
        "DataLoader": {
            "Train": {
                "dataset": {
                    "image_root": str(data),
                    "cls_label_path": str(data / "train.txt"),
                    "transform_ops": [{"RandCropImage": {"size": SIDE}}, *ops],
                },
                "sampler": {"batch_size": 5, "drop_last": False},
            },
            "Eval": {"Query": evaluated, "Gallery": evaluated},
        },
    }
    path = data / "tiny.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def run(path: Path, *overrides: str) -> tuple[str, list[str]]:
    """What was printed, with blanks joined, and the problems."""
    console = Console(file=io.StringIO(), width=200)
    problems: list[str] = []
    try:
        check(load_config(path, overrides), console)
    except ConfigError as error:
        problems = str(error).splitlines()
    return re.sub(r"[ │]+", " ", console.file.getvalue()), problems  # type: ignore[attr-defined]


def test_what_would_run_is_shown(config_path: Path) -> None:
    shown, problems = run(config_path)
    assert problems == []
    config = load_config(config_path)
    weights = sum(math.prod(parameter.shape) for parameter in build_model(config, CLASSES).parameters())
    for text in (
        "tiny",
        "MobileNetV1 -> Tanh -> FC, pictures of 32 x 32",
        f"{weights / 1e6:.3g} M (backbone ",
        f"{3 * 4 * weights / 1e6:.3g} MB for weights, gradients and optimiser",  # and one momentum each
        "16 bits, by sign",
        "random weights",
        "1 x CELoss (epsilon 0.1)",
        "0.5 x LCDSHLoss (_lambda 3, n_class 3)",
        "6 epochs, batches of 5, 5 steps an epoch, 30 steps in all",
        "Momentum, momentum 0.9, L2 1e-05",
        "1 x cpu",
        "24 of 3 classes; smallest 0 with 8, largest 0 with 8",
        "12 queries, each searched among the others; every 2 epochs: Recall@1, Recall@5, mAP",
        str(config.output_dir),
    ):
        assert text in shown, text
    assert not config.output_dir.exists()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("Cosine", 0.1), lambda epoch: 0.05 * (1 + math.cos(math.pi * epoch / 20))),
        (
            Schedule("Cosine", 0.1, warmup_epoch=4, eta_min=0.01),
            lambda epoch: 0.025 * epoch if epoch < 4 else 0.01 + 0.045 * (1 + math.cos(math.pi * (epoch - 4) / 16)),
        ),
        (Schedule("Piecewise", 0.1, decay_epochs=(5,), values=(0.1, 0.01)), lambda epoch: 0.1 if epoch < 5 else 0.01),
        (Schedule("Constant", 0.3), lambda epoch: 0.3),
    ],
)
def test_learning_rates_follow_the_formula(schedule: Schedule, expected: Callable[[float], float]) -> None:
    for epoch, rate in learning_rates(Stage("only", 20, 8, OptimizerConfig("SGD", schedule))):
        assert rate == pytest.approx(expected(epoch), abs=1e-9)


def test_broken_pictures_are_all_named(config_path: Path, data: Path) -> None:
    (data / "0_1.png").write_bytes(b"no picture")
    torn = (data / "2_5.png").read_bytes()
    (data / "2_5.png").write_bytes(torn[: len(torn) // 2])
    shown, problems = run(config_path)
    assert problems[0] == "2 problems in what would run:"
    assert f"{data / 'train.txt'}:2: " in problems[1]
    assert "0_1.png" in problems[1]
    assert f"{data / 'train.txt'}:22: " in problems[2]
    assert "2_5.png" in problems[2]
    assert "16 bits, by sign" in shown  # what is known is shown all the same


def test_a_long_list_of_problems_is_cut(config_path: Path, data: Path) -> None:
    for path in data.glob("*.png"):
        path.write_bytes(b"no picture")
    _, problems = run(config_path)
    assert problems[0] == "36 problems in what would run:"  # 24 of the training, 12 of the evaluation
    assert len(problems) == 22
    assert problems[-1].strip() == "and 16 more"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0_9.png 0", "25: 0_9.png"),
        ("0_1.png 3", "25: 0_1.png: label 3 of 3"),
        ("0_1.png cat", "25: 0_1.png: label 'cat' is no number"),
        ("0_1.png", "25: no blank separates path and class"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(config_path: Path, data: Path, line: str, message: str) -> None:
    with (data / "train.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}")
    _, problems = run(config_path)
    assert len(problems) == 2
    assert f"{data / 'train.txt'}:{message}" in problems[1]


def test_problems_of_all_parts_come_together(config_path: Path, data: Path) -> None:
    (data / "val.txt").unlink()
    _, problems = run(
        config_path,
        "DataLoader.Train.sampler={batch_size: 50, drop_last: true}",
        f"Global.pretrained_model={data / 'none.pdparams'}",
    )
    text = "\n".join(problems)
    assert "val.txt" in text
    assert "24 pictures do not fill a batch of 50" in text
    assert "there is no file" in text
    assert len(problems) == 4


def test_classes_without_pictures_are_told(config_path: Path) -> None:
    shown, problems = run(config_path, "Arch.Head.class_num=9", "Loss.Train=[CELoss: {}]")
    assert problems == []
    assert "note: 6 of 9 classes have no pictures to learn from: 3, 4, 5, 6, 7, ..." in shown


def test_queries_that_cannot_be_found_are_told(config_path: Path, data: Path) -> None:
    lines = (data / "val.txt").read_text("utf-8").splitlines()
    (data / "gallery.txt").write_text("\n".join(line for line in lines if not line.endswith(" 2")), "utf-8")
    gallery = f"DataLoader.Eval.Gallery.dataset.cls_label_path={data / 'gallery.txt'}"
    shown, problems = run(config_path, gallery)
    assert problems == []
    assert "12 queries, in a gallery of 8" in shown
    assert "note: 4 queries are of classes that the gallery does not have" in shown
    (data / "gallery.txt").write_text("0_0.png other", "utf-8")
    _, problems = run(config_path, gallery)
    assert len(problems) == 2


def test_weights_of_another_architecture_are_refused(config_path: Path, data: Path) -> None:
    config = load_config(config_path)
    fitting = data / "fitting.pdparams"
    save_checkpoint(fitting, to_weights(build_model(config, CLASSES)))
    shown, problems = run(config_path, f"Global.pretrained_model={fitting}")
    assert problems == []
    assert f"weights {fitting}" in shown
    longer = ("Arch.Backbone.class_num=24", "Arch.Head.embedding_size=24")
    _, problems = run(config_path, f"Global.pretrained_model={fitting}", *longer)
    assert "of another architecture" in problems[1]
    assert str(fitting) in problems[1]


def test_pretrained_weights_that_are_not_there_are_named(config_path: Path, data: Path) -> None:
    shown, problems = run(config_path, f"Arch.Backbone.pretrained={data / 'none.npz'}")
    assert "none.npz" in problems[1]
    shown, problems = run(config_path, "Arch.Backbone.pretrained=true")  # nothing is downloaded
    assert problems == []
    assert "published weights of MobileNetV1, loaded when it starts" in shown


def test_a_network_without_a_head_is_tried_too(config_path: Path) -> None:
    dch = "Loss.Train=[DCHLoss: {gamma: 8, _lambda: 0.1, n_class: 3}]"
    shown, problems = run(config_path, "Arch.Head=null", dch)
    assert problems == []
    assert "MobileNetV1 -> Tanh, pictures of 32 x 32" in shown
    _, problems = run(config_path, "Arch.Head=null", dch.replace("n_class: 3", "n_class: 2"))
    assert "train.txt:17: 2_0.png: label 2 of 2" in problems[1]


def test_an_earlier_training_is_told(config_path: Path, data: Path) -> None:
    (data / "out").mkdir()
    (data / "out" / "last.pdparams").write_bytes(b"")
    shown, _ = run(config_path)
    assert "holds an earlier training: --resume goes on with it" in shown


def test_pictures_of_another_size_than_the_network_takes(config_path: Path) -> None:
    _, problems = run(config_path, "Arch.Backbone.name=AlexNet")
    assert [line.strip().partition(":")[0] for line in problems[1:]] == [
        "DataLoader.Train",
        "DataLoader.Eval.Query",
        "DataLoader.Eval.Gallery",
    ]
    assert "pictures of 32 x 32 pixels: " in problems[1]
    assert "AlexNet" in problems[1]


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle has CUDA")
def test_a_gpu_that_is_not_there_is_asked_for(config_path: Path) -> None:
    shown, problems = run(config_path, "Global.device=gpu", "AMP.level=O1")
    assert "Global.device is gpu, and Paddle sees none" in problems[1]
    assert "note: AMP has no effect on a CPU" in shown
