"""Two processes on the CPU train like one: real ``paddle.distributed.launch``, real all-reduce over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import draw_patterns

ROOT = Path(__file__).parent.parent.parent
STEPS = 10


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without batch norm and dropout, and cross-entropy, which is a mean over pictures."""
    folder = tmp_path_factory.mktemp("distributed")
    draw_patterns(folder)
    root = {"image_root": str(folder)}
    normalize = {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    content = {
        "Global": {"name": "patterns", "seed": 5, "output_dir": str(folder / "out"), "epochs": STEPS / 4},
        "Arch": {
            "name": "RecModel",
            "Backbone": {"name": "MobileNetV1", "class_num": 16, "norm": False, "fc_std": 3.0},
            "Head": {"name": "FC", "embedding_size": 16, "class_num": "auto"},
        },
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": {"name": "Cosine", "learning_rate": 0.02},
            "regularizer": {"name": "L2", "coeff": 1e-5},
        },
        "DataLoader": {
            "Train": {
                "dataset": {
                    **root,
                    "cls_label_path": str(folder / "train.txt"),
                    "transform_ops": [{"RandCropImage": {"size": 32}}, {"RandFlipImage": {"flip_code": 1}}, normalize],
                },
                "sampler": {"name": "DistributedBatchSampler", "batch_size": 12, "drop_last": True, "shuffle": True},
            },
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def train(config: Path, out: Path, processes: int, *overrides: str) -> list[dict[str, float]]:
    """The log of a run with a global batch of 12."""
    overrides = (f"Global.output_dir={out}", f"DataLoader.Train.sampler.batch_size={12 // processes}", *overrides)
    command = [sys.executable, "-W", "ignore"]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--backend", "gloo"]
        command += ["--log_dir", str(out / "log"), str(ROOT / "models" / "train.py")]
    else:
        command += ["-m", "models.train"]
    command += ["-c", str(config), *(word for override in overrides for word in ("-o", override))]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    logs = "\n".join(path.read_text("utf-8", "replace")[-2000:] for path in (out / "log").glob("workerlog.*"))
    assert done.returncode == 0, done.stderr + logs
    return [json.loads(line) for line in (out / "train.jsonl").read_text("utf-8").splitlines()]


def test_two_processes_give_the_loss_curve_of_one(config_path: Path, tmp_path: Path) -> None:
    alone = train(config_path, tmp_path / "one", 1)
    together = train(config_path, tmp_path / "two", 2)
    assert len(alone) == len(together) == STEPS
    losses = [record["loss"] for record in alone]
    assert [record["loss"] for record in together] == pytest.approx(losses, abs=1e-4)
    assert [record["accuracy"] for record in together] == pytest.approx([record["accuracy"] for record in alone])
    # The curve moves: equal curves of a net that learns nothing would show nothing.
    assert abs(losses[-1] - losses[0]) > 0.01


def test_the_first_process_evaluates_and_a_head_may_be_left_out_of_the_loss(config_path: Path, tmp_path: Path) -> None:
    ops = "[{ResizeImage: {size: 32}}, {NormalizeImage: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}]"
    folder = config_path.parent
    listed = f"{{image_root: {folder}, cls_label_path: {folder / 'query.txt'}, transform_ops: {ops}}}"
    records = train(
        config_path,
        tmp_path,
        2,
        "Loss.Train=[{LCDSHLoss: {_lambda: 3, n_class: 3}}]",
        f"DataLoader.Eval={{Query: {{dataset: {listed}, sampler: {{batch_size: 4}}}}}}",
        "Global.epochs=1",
    )
    assert [(record["event"], record["step"]) for record in records] == [
        *(("step", step) for step in range(1, 5)),
        ("eval", 4),
    ]
    assert 0.0 < records[-1]["mAP"] <= 1.0
    assert {path.name for path in tmp_path.glob("*.pdparams")} == {"best.pdparams", "final.pdparams", "last.pdparams"}
