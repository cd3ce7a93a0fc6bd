"""Training from a configuration: small real runs, killed and resumed, evaluated, exported and served."""

import json
import re
import shutil
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

from models.inference import Hasher, pack_bits
from models.training.checkpoint import load_checkpoint, load_weights
from models.training.config_file import load_config
from models.training.data.datasets import load_datasets
from models.training.data.loader import batches
from models.training.data.transforms import Transforms
from models.training.model import build_model, fit_weights

from .conftest import draw_patterns


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages, 16 bits, 32 pixels: seconds of training."""
    folder = tmp_path_factory.mktemp("training")
    draw_patterns(folder)
    root = {"image_root": str(folder)}
    plain = [
        {"ResizeImage": {"size": 32}},
        {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
    ]
    dropping = {"name": "DistributedBatchSampler", "batch_size": 12, "drop_last": True, "shuffle": True}
    in_order = {"name": "DistributedBatchSampler", "batch_size": 12, "drop_last": False, "shuffle": False}
    evaluated = {
        "dataset": {**root, "cls_label_path": str(folder / "query.txt"), "transform_ops": plain},
        "sampler": in_order,
    }
    optimizer = {"name": "AdamW", "weight_decay": 1e-4, "clip_norm_global": 5.0}
    content: dict[str, Any] = {
        "Global": {"name": "patterns", "seed": 3, "output_dir": str(folder / "out"), "eval_during_train": True},
        "EMA": {"decay": 0.9},
        "Arch": {
            "name": "RecModel",
            "Backbone": {"name": "MobileNetV1", "class_num": 16, "pooled_blocks": [5, 13]},
            "Neck": {"name": "Tanh"},
            "Head": {"name": "CosMargin", "embedding_size": 16, "class_num": "auto"},
        },
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}, {"SimilarityPreservingLoss": {"weight": 0.1}}]},
        "Optimizer": {**optimizer, "lr": {"name": "Cosine", "learning_rate": 0.002, "warmup_epoch": 0.5}},
        "Stages": [
            {"name": "upper", "first_block": 4, "epochs": 3, "batch_size": 12},
            {"name": "whole", "epochs": 1, "batch_size": 12, "Optimizer": {"lr": {"learning_rate": 0.001}}},
        ],
        "DataLoader": {
            "Train": {
                "dataset": {
                    **root,
                    "cls_label_path": str(folder / "train.txt"),
                    "teacher": str(folder / "teacher.npz"),
                    "transform_ops": [{"RandomView": {"size": 32}}, *plain[1:]],
                },
                "sampler": dropping,
            },
            "Eval": {"Query": evaluated, "Gallery": evaluated},
        },
        "Metric": {"Eval": [{"Recallk": {"topk": [1, 5]}}, {"mAP": {}}]},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def run(module: str, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", module, "-c", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def read_log(folder: Path, event: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    return [record for record in records if record["event"] == event]


@pytest.fixture(scope="module")
def trained(config_path: Path) -> Path:
    """Output folder of one run from start to end."""
    done = run("models.train", config_path)
    assert done.returncode == 0, done.stderr
    return config_path.parent / "out"


def test_the_loss_falls(trained: Path) -> None:
    log = read_log(trained, "step")
    assert [record["step"] for record in log] == [*range(1, 13), *range(1, 5)]
    assert {"loss", "accuracy", "lr", "CELoss", "SimilarityPreservingLoss", "epoch", "stage"} <= log[0].keys()
    assert log[-1]["CELoss"] < 0.8 * log[0]["CELoss"]


def test_each_epoch_is_evaluated_and_the_best_weights_are_kept(config_path: Path, trained: Path) -> None:
    evaluated = read_log(trained, "eval")
    assert [(record["stage"], record["epoch"]) for record in evaluated] == [
        ("upper", 1.0),
        ("upper", 2.0),
        ("upper", 3.0),
        ("whole", 1.0),
    ]
    assert all(0.0 < record["mAP"] <= 1.0 for record in evaluated)
    assert (trained / "best.pdparams").is_file()
    assert cv2.imread(str(trained / "curves.png")) is not None
    # What the log says of the last epoch is what models.eval measures of the final weights.
    final = str(trained / "final.pdparams")
    done = run("models.eval", config_path, "--weights", final, "--output", str(trained / "eval"))
    assert done.returncode == 0, done.stderr
    measured = json.loads((trained / "eval" / "metrics.json").read_text("utf-8"))
    assert measured["mAP"] == pytest.approx(evaluated[-1]["mAP"], abs=1e-6)


# After the fourth line of the log the first epoch is evaluated; the seventeenth is the second step of the second stage.
@pytest.mark.parametrize(("how", "lines"), [(signal.SIGINT, 4), (signal.SIGKILL, 17)])
def test_a_stopped_run_resumes_to_the_same_weights(
    config_path: Path, trained: Path, tmp_path: Path, how: int, lines: int
) -> None:
    out = tmp_path / "out"
    arguments = ["-o", f"Global.output_dir={out}", "-o", "Global.save_interval_s=0"]
    command = [sys.executable, "-W", "ignore", "-m", "models.train", "-c", str(config_path), *arguments, "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "train.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text("utf-8").count("\n") >= lines):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(60)
    if how == signal.SIGINT:  # it stopped in the evaluation, which has to be done again
        assert (process.returncode, len(read_log(out, "step")), read_log(out, "eval")) == (130, 4, [])
    assert not (out / "final.pdparams").exists()
    resumed = run("models.train", config_path, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    expected, actual = load_checkpoint(trained / "final.pdparams"), load_checkpoint(out / "final.pdparams")
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    # The log is that of a run that was never stopped: no step twice, none missing.
    assert read_log(out, "step") == read_log(trained, "step")
    assert read_log(out, "eval") == read_log(trained, "eval")


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


def test_exported_codes_are_those_of_the_training_graph(config_path: Path, trained: Path, tmp_path: Path) -> None:
    final = str(trained / "final.pdparams")
    assert run("models.export", config_path, "--weights", final, "--target", str(tmp_path / "model")).returncode == 0
    config = load_config(config_path)
    assert config.query is not None
    dataset = load_datasets(config.train.datasets)
    transforms = Transforms.from_ops(config.query.transform_ops)
    (batch,) = batches(dataset, transforms, [np.arange(len(dataset))], None)
    import paddle

    model = build_model(config, class_num=1)
    model.head = None
    fit_weights(model, load_weights(final), final)
    model.eval()
    with paddle.no_grad():
        expected = pack_bits(model(paddle.to_tensor(batch.views)).numpy(), "sign")
    actual = Hasher.load(tmp_path / "model", "cpu").hash([dataset.read(index) for index in range(len(dataset))])
    assert np.unpackbits(actual ^ expected).mean() <= 1e-4


def test_a_loss_that_is_not_finite_ends_with_what_was_trained(config_path: Path, tmp_path: Path) -> None:
    overrides = [
        f"Global.output_dir={tmp_path}",
        "Global.save_interval_s=0",
        "Optimizer.name=SGD",
        "Optimizer.weight_decay=0",
        "Optimizer.clip_norm_global=null",
        "Optimizer.lr={name: Piecewise, decay_epochs: [0.75], values: [0.0001, 1.0e+30]}",
        "Stages=[{name: whole, epochs: 3, batch_size: 12}]",
    ]
    done = run("models.train", config_path, *(word for override in overrides for word in ("-o", override)))
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert re.search("the loss is (inf|nan) at step|weights became|features are not finite", said)
    assert f"what was trained before is in {tmp_path / 'last.pdparams'}; lower Optimizer.lr.learning_rate" in said
    assert "Traceback" not in done.stderr
    kept = load_weights(tmp_path / "last.pdparams")
    assert all(np.isfinite(value).all() for value in kept.values())


def test_a_training_begun_again_leaves_the_earlier_one_aside(config_path: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    overrides = [f"Global.output_dir={out}", "Stages=[{name: whole, epochs: 0.25, batch_size: 12}]"]
    overrides += ["DataLoader.Eval=null", "Global.eval_during_train=false"]
    done = run("models.train", config_path, *(word for override in overrides for word in ("-o", override)))
    assert done.returncode == 0, done.stderr
    assert not (out / "best.pdparams").exists()
    for name in ("best.pdparams", "final.pdparams", "last.pdparams", "train.jsonl"):
        assert (out / "previous" / name).read_bytes() == (trained / name).read_bytes()
    assert len(read_log(out, "step")) == 1


def test_a_checkpoint_of_another_architecture_is_refused(config_path: Path, trained: Path, tmp_path: Path) -> None:
    done = run(
        "models.train",
        config_path,
        *("-o", f"Global.output_dir={tmp_path}", "-o", f"Global.checkpoints={trained / 'last.pdparams'}"),
        *("-o", "Arch.Backbone.pooled_blocks=[13]"),
    )
    assert done.returncode == 2
    assert "another architecture" in done.stderr
    assert "backbone." in done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Loss.Train=[{TripletLoss: {}}]", "TripletLoss"),
        ("Loss.Train=[{CELoss: {temperature: 2}}]", "temperature"),
        ("Arch.Backbone.name=ResNet9000", "ResNet9000"),
        ("Stages.0.batch_size=100", "batch_size"),
        ("Global.pretrained_model=/nowhere/weights", "/nowhere/weights"),
        ("Global.device=gpu", "paddlepaddle-gpu"),
        ("Global.colour=red", "Global.colour"),
    ],
)
def test_unusable_values_end_with_one_line(config_path: Path, tmp_path: Path, override: str, message: str) -> None:
    import paddle

    if "gpu" in override and paddle.is_compiled_with_cuda():
        pytest.skip("there is a GPU build of Paddle here")
    done = run("models.train", config_path, "-o", f"Global.output_dir={tmp_path}", "-o", override)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
