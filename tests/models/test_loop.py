"""What a training leaves behind when something goes wrong, and what it goes on from: small real runs."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from paddle.base import core
from rich.console import Console

from models.training.checkpoint import load_checkpoint
from models.training.config import Config, ConfigError
from models.training.config_file import load_config
from models.training.data.datasets import DatasetError
from models.training.loop import train

from .conftest import draw_patterns

# Paddle, of every batch norm.
pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """Four steps an epoch, in the order of the list; nothing is saved before the end unless something happens."""
    draw_patterns(tmp_path)
    ops = [{"ResizeImage": {"size": 32}}, {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}]
    part = {"image_root": str(tmp_path), "transform_ops": ops}
    evaluated = {"dataset": {**part, "cls_label_path": str(tmp_path / "query.txt")}, "sampler": {"batch_size": 12}}
    content = {
        "Global": {"output_dir": str(tmp_path / "out"), "epochs": 2, "save_interval_s": 1000},
        "Arch": {
            "Backbone": {"name": "PPLCNet_x0_25", "class_num": 16},
            "Head": {"name": "FC", "embedding_size": 16, "class_num": 3},
        },
        "Loss": {"Train": [{"CELoss": {}}]},
        "Optimizer": {"name": "Adam", "lr": 0.001},
        "DataLoader": {
            "Train": {
                "dataset": {**part, "cls_label_path": str(tmp_path / "train.txt")},
                "sampler": {"batch_size": 12, "shuffle": False},
            },
            "Eval": {"Query": evaluated, "Gallery": evaluated},
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def run(path: Path, *overrides: str, resume: bool = False) -> tuple[Config, str]:
    """Train, and give the configuration and what was said."""
    config = load_config(path, overrides)
    console = Console(width=200, force_terminal=False, record=True, file=sys.stderr)
    train(config, console, resume=resume)
    return config, console.export_text()


def read_log(folder: Path) -> list[tuple[str, int]]:
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    return [(record["event"], record["step"]) for record in records]


def assert_same(one: Path, other: Path) -> None:
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


FIRST_EPOCH = [("step", 1), ("step", 2), ("step", 3), ("step", 4), ("eval", 4)]
SECOND_EPOCH = [("step", 5), ("step", 6), ("step", 7), ("step", 8), ("eval", 8)]


@pytest.mark.parametrize(
    ("where", "steps", "name"),
    [
        pytest.param("train.txt", 2, r"train.txt:33: .*checks0.png", id="in a batch"),
        pytest.param("query.txt", 4, r"query.txt:9: .*checks0.png", id="in an evaluation", marks=pytest.mark.slow),
    ],
)
def test_a_broken_picture_leaves_a_checkpoint_to_go_on_from(
    config_path: Path, tmp_path: Path, where: str, steps: int, name: str
) -> None:
    """The 33rd picture is in the third batch; of the evaluated ones it is read at the end of the first epoch."""
    run(config_path)
    shutil.move(tmp_path / "out", tmp_path / "whole")
    other = "query.txt" if where == "train.txt" else "train.txt"
    lines = (tmp_path / other).read_text("utf-8")
    good = (tmp_path / "checks0.png").read_bytes()
    (tmp_path / "spare.png").write_bytes(good)
    (tmp_path / other).write_text(lines.replace("checks0.png", "spare.png"), "utf-8")
    (tmp_path / "checks0.png").write_bytes(good[:200])
    with pytest.raises(DatasetError, match=rf"{name}.*; what was trained before is in .*last.pdparams"):
        run(config_path)
    assert read_log(tmp_path / "out") == FIRST_EPOCH[:steps]
    (tmp_path / "checks0.png").write_bytes(good)
    run(config_path, resume=True)
    assert read_log(tmp_path / "out") == FIRST_EPOCH + SECOND_EPOCH
    for weights in ("final.pdparams", "best.pdparams"):
        assert_same(tmp_path / "out" / weights, tmp_path / "whole" / weights)


def test_the_bits_do_not_depend_on_what_the_process_did_before(config_path: Path, tmp_path: Path) -> None:
    core.set_num_threads(1)
    run(config_path)
    shutil.move(tmp_path / "out", tmp_path / "whole")
    core.set_num_threads(2)
    run(config_path)
    assert_same(tmp_path / "out" / "final.pdparams", tmp_path / "whole" / "final.pdparams")


def test_the_later_checkpoint_counts(config_path: Path, tmp_path: Path) -> None:
    first, _ = run(config_path, "Global.epochs=1")
    begun = f"Global.checkpoints={first.output_dir / 'last.pdparams'}"
    moved = f"Global.output_dir={tmp_path / 'second'}"
    _, said = run(config_path, begun, moved)
    assert f"going on from step 4 of stage train, as {first.output_dir / 'last'}" in said
    # The best weights of the first were left there: whichever is the best of what came after is here.
    assert (tmp_path / "second" / "best.pdparams").is_file()
    assert read_log(tmp_path / "second") == SECOND_EPOCH
    _, said = run(config_path, begun, moved, resume=True)
    assert f"going on from step 8 of stage train, as {tmp_path / 'second' / 'last'}" in said


def test_a_checkpoint_of_another_optimizer_is_refused(config_path: Path) -> None:
    run(config_path, "Global.epochs=1")
    with pytest.raises(ConfigError, match="a stage with Adam from block 0 on, and train is one with Momentum"):
        run(config_path, "Optimizer.name=Momentum", resume=True)


def test_weights_are_kept_every_few_epochs_and_set_aside(config_path: Path, tmp_path: Path) -> None:
    run(config_path, "Global.save_interval=1")
    assert_same(tmp_path / "out" / "epoch_2.pdparams", tmp_path / "out" / "final.pdparams")
    first = load_checkpoint(tmp_path / "out" / "epoch_1.pdparams")
    assert any(
        (first[name] != value).any() for name, value in load_checkpoint(tmp_path / "out" / "final.pdparams").items()
    )
    _, said = run(config_path, "Global.epochs=1")
    assert "an earlier training of" in said
    assert not (tmp_path / "out" / "epoch_1.pdparams").exists()
    _, said = run(config_path, "Global.epochs=1")
    # Of the one before there is nothing left that could be taken for this one's.
    left = {path.name for path in (tmp_path / "out" / "previous").iterdir()}
    assert left == {"best.pdparams", "curves.png", "final.pdparams", "last.pdparams", "train.jsonl"}


def test_a_training_can_begin_with_the_weights_that_it_sets_aside(config_path: Path, tmp_path: Path) -> None:
    run(config_path, "Global.epochs=1")
    run(config_path, "Global.epochs=1", f"Global.pretrained_model={tmp_path / 'out' / 'final.pdparams'}")
    assert (tmp_path / "out" / "previous" / "final.pdparams").is_file()
    assert (tmp_path / "out" / "final.pdparams").is_file()


def test_curves_that_cannot_be_drawn_end_no_training(config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "models.training.reports.plots", None)  # what an import that fails finds
    config, said = run(config_path)
    assert said.count("curves.png is not drawn") == 1
    assert not (config.output_dir / "curves.png").exists()
    assert (config.output_dir / "final.pdparams").is_file()


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        (
            "DataLoader.Eval.Gallery.dataset.transform_ops.0.ResizeImage.size=48",
            ConfigError,
            r"queries are of \[32, 32\]",
        ),
        ("Arch.Backbone.name=AlexNet", ConfigError, "pictures of 32 x 32 pixels: AlexNet takes"),
        ("DataLoader.Train.sampler.batch_size=100", DatasetError, "do not fill a batch of 100"),
    ],
)
def test_what_cannot_be_trained_leaves_no_checkpoint(
    config_path: Path, tmp_path: Path, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        run(config_path, override)
    assert "what was trained" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*.pdparams"))


def test_names_in_brackets_are_no_markup(config_path: Path, tmp_path: Path) -> None:
    stages = "Stages=[{name: 'up[/x]', epochs: 1, batch_size: 12}]"
    output = f"Global.output_dir={tmp_path / 'a[bold]b'}"
    _, said = run(config_path, stages, "Global.epochs=null", output)
    assert "stage up[/x] epoch 1.00" in said
    assert "a[bold]b" in said


def test_a_terminal_shows_a_bar_and_a_table_of_epochs(config_path: Path) -> None:
    screen = io.StringIO()
    train(load_config(config_path), Console(width=160, force_terminal=True, file=screen))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).rsplit("┏", 1)[1]
    assert re.search(r"stage ┃ epoch ┃ lr .* ┃ CELoss ┃ accuracy ┃ recall1", last)
    assert re.search(r"train │ 1\.00 .*\n.*train │ 2\.00 ", last)
    assert re.search(r"train ━+ 8/8 .* pictures/s", last)
