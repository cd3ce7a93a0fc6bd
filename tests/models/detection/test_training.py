"""A detector's training from the configuration to the folder that the service loads: small real runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import typer
from rich.console import Console

from models import eval as eval_command
from models import export as export_command
from models import nets
from models import train as train_command
from models.inference import STARTER_DETECTOR, Detector, Manifest
from models.nets.picodet import cell_centres, decode_boxes
from models.training.checkpoint import load_checkpoint, load_weights
from models.training.config_file import load_config
from models.training.detection.boxes import suppress
from models.training.detection.detector import build_detector, export_detector
from models.training.detection.training import Detection
from models.training.devices import Devices
from models.training.loop import Interrupted, Progress, train
from models.training.pretrained import PretrainedError
from models.training.stage_run import StageRun

NOT_MEASURED = "DataLoader.Eval=null"
CONSOLE = Console(file=sys.stderr, force_terminal=False, width=200)


def assert_same(one: Path, other: Path) -> None:
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_trains_both_stages_and_measures(config_path: Path, pictures: Path) -> None:
    train(load_config(config_path), CONSOLE)
    records = [json.loads(line) for line in (pictures / "out" / "train.jsonl").read_text("utf-8").splitlines()]
    assert [(each["event"], each["stage"], each["step"]) for each in records] == [
        ("step", "upper", 1),
        ("step", "upper", 2),
        ("step", "upper", 3),
        ("eval", "upper", 3),
        ("step", "whole", 1),
        ("eval", "whole", 1),
    ]
    assert {"loss", "quality", "box", "distribution"} <= records[0].keys()
    assert {"hit@1", "hit@5", "AP", "boxes"} <= records[3].keys()
    assert (pictures / "out" / "curves.png").is_file()


def test_the_frozen_parts_stay_as_they_were(config_path: Path, pictures: Path) -> None:
    """Backbone, the neck's way down and the head at stride 8; everything else is trained."""
    upper = "Stages=[{name: upper, first_block: 2, epochs: 0.5, batch_size: 4}]"
    config = load_config(config_path, [f"Arch.pretrained={STARTER_DETECTOR}", upper, NOT_MEASURED])
    before, _ = Detection.open(config, Devices("cpu")).initial_weights(print)
    train(config, CONSOLE)
    final = load_weights(pictures / "out" / "final.pdparams")
    assert final.keys() == before.keys()
    for name, value in final.items():
        is_frozen = name.startswith(("esnet.", "way_down.", "head.branches.0.tower."))
        assert np.array_equal(value, before[name]) == is_frozen, name


def test_going_on_after_a_stop_gives_the_same_bits(
    config_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(load_config(config_path, [f"Global.output_dir={pictures / 'whole'}", NOT_MEASURED]), CONSOLE)
    after_step = Progress._after_step
    stops = iter([False, True, False, True, False])

    def stop_now_and_then(self: Progress, run: StageRun) -> None:
        after_step(self, run)
        if next(stops):
            raise Interrupted

    monkeypatch.setattr(Progress, "_after_step", stop_now_and_then)
    config = load_config(config_path, [NOT_MEASURED])
    for _ in range(2):
        with pytest.raises(Interrupted, match="go on with --resume"):
            train(config, CONSOLE, resume=True)
    train(config, CONSOLE, resume=True)
    assert_same(pictures / "out" / "final.pdparams", pictures / "whole" / "final.pdparams")


def test_two_devices_draw_what_one_draws(config_path: Path) -> None:
    config = load_config(config_path)
    stage = config.stages[0]
    whole = next(Detection.open(config, Devices("cpu")).epoch(stage, (1,), 0))
    parts = []
    for rank in range(2):
        half = load_config(config_path, ["Stages.0.batch_size=2"])
        parts.append(next(Detection.open(half, Devices("cpu", rank, 2)).epoch(half.stages[0], (1,), 0)))
    np.testing.assert_array_equal(np.concatenate([part.views for part in parts]), whole.views)
    assert [len(each) for part in parts for each in part.objects] == [len(each) for each in whole.objects]


def test_an_epoch_can_begin_anywhere(config_path: Path) -> None:
    task = Detection.open(load_config(config_path), Devices("cpu"))
    stage = task.config.stages[0]
    drawn = list(task.epoch(stage, (3,), 0))
    assert len(drawn) == task.epoch_steps(stage) == 2
    (last,) = task.epoch(stage, (3,), 1)
    np.testing.assert_array_equal(last.views, drawn[1].views)
    assert not np.array_equal(drawn[0].views, drawn[1].views)


def test_an_export_gives_boxes_inside_of_any_picture(config_path: Path, pictures: Path) -> None:
    config = load_config(config_path, ["Arch.score_bias=0"])
    weights, _ = Detection.open(config, Devices("cpu")).initial_weights(print)
    folder = export_detector(config, weights, pictures / "export")
    assert {path.name for path in folder.iterdir()} == {"inference.json", "inference.pdiparams", "inference.yml"}
    detector = Detector.load(folder, "cpu")
    rng = np.random.default_rng(0)
    for height, width in ((64, 64), (50, 200), (1, 1), (300, 90)):
        boxes = detector.detect(rng.integers(0, 255, (height, width, 3)).astype(np.uint8), 0.0, 100)
        assert (boxes[:, :4] >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        assert (np.diff(boxes[:, 4]) <= 0).all()
        assert len(boxes) > 0


def test_an_export_finds_what_the_training_graph_finds(config_path: Path, pictures: Path) -> None:
    """Boxes, scores and suppression by hand from the logits of a photo of the network's size."""
    config = load_config(config_path, ["Arch.score_bias=0"])
    weights, _ = Detection.open(config, Devices("cpu")).initial_weights(print)
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    folder = export_detector(config, weights, pictures / "export")
    found = Detector.load(folder, "cpu").detect(picture, 0.0, 100)
    network = build_detector(config)
    network.set_state_dict(weights)
    network.eval()
    view = Manifest.read(folder, "detector").preprocessing(picture)
    with paddle.no_grad():
        logits, distances = network(paddle.to_tensor(view[None]))
        scores = paddle.nn.functional.sigmoid(logits)[0, :, 0].numpy()
        boxes = decode_boxes(distances, *cell_centres(64, 64))[0].numpy().clip(0, 64)
    kept = suppress(boxes, scores, 0.5, 100)
    assert len(found) == len(kept)
    np.testing.assert_allclose(found[:, 4], scores[kept], atol=1e-4)
    np.testing.assert_allclose(found[:, :4], boxes[kept], atol=0.05)


def test_a_training_can_start_from_an_export(config_path: Path, pictures: Path) -> None:
    """Whatever else the process made before, the layers are told by their order."""
    config = load_config(config_path)
    weights, _ = Detection.open(config, Devices("cpu")).initial_weights(print)
    nets.build("PicoDetS")
    export_detector(config, weights, pictures / "export")
    again = load_config(config_path, [f"Arch.pretrained={pictures / 'export'}"])
    started, pretrained = Detection.open(again, Devices("cpu")).initial_weights(print)
    assert set(pretrained) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(started[name], value, err_msg=name)
    (pictures / "export" / "inference.pdiparams").write_bytes(b"torn")
    with pytest.raises(PretrainedError, match="cannot be read as an exported detector"):
        Detection.open(again, Devices("cpu")).initial_weights(print)


def test_the_commands_check_train_measure_and_export(
    config_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_command.main(config_path, check=True)
    assert "67% ComposedScenes" in capsys.readouterr().err
    assert not (pictures / "out").exists()
    train_command.main(config_path, [NOT_MEASURED, "Stages.0.epochs=0.5"])
    export_command.main(config_path)
    folder, weights = pictures / "out" / "export", pictures / "out" / "final.pdparams"
    eval_command.main(config_path, model=[str(folder)], weights=[f"w={weights}"])
    assert "best box is an object" in capsys.readouterr().out
    figures = json.loads((pictures / "out" / "eval" / "metrics.json").read_text("utf-8"))
    assert set(figures) == {"w", "export"}
    assert {path.name for path in (pictures / "out" / "eval").iterdir()} == {
        "metrics.json",
        "metrics.md",
        "boxes_w.png",
        "boxes_export.png",
    }
    with pytest.raises(typer.Exit):
        export_command.main(config_path, hamming_radius=5)
    assert "this is a detector" in capsys.readouterr().err


def test_a_check_names_everything_that_would_fail(
    config_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "3.png").write_bytes(b"no picture")
    with pytest.raises(typer.Exit):
        train_command.main(config_path, ["Arch.pretrained=nowhere.npz"], check=True)
    assert "3.png cannot be decoded" in capsys.readouterr().err
