"""Figures: what they show, and that odd logs, names and pictures neither break them nor warn (warnings are errors)."""

from __future__ import annotations

import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.training.metrics import Evaluation, evaluate_codes
from models.training.reports.lettering import Lettering
from models.training.reports.neighbours import Shown, choose_queries, plot_neighbours
from models.training.reports.plots import plot_bit_balance, plot_precision_recall, plot_training
from models.training.reports.tables import rows, to_markdown
from models.training.reports.training_log import read_log


def step(number: int, loss: float, stage: str = "all", **more: Any) -> dict[str, Any]:
    return {"event": "step", "stage": stage, "number": 1, "epoch": 0.1, "step": number, "lr": 0.1, "loss": loss, **more}


def evaluated(number: int, value: float, stage: str = "all") -> dict[str, Any]:
    return {"event": "eval", "stage": stage, "number": 1, "epoch": 1.0, "step": number, "recall1": 0.5, "mAP": value}


def write_log(path: Path, records: list[dict[str, Any]], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail, "utf-8")
    return path


def read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def test_a_resumed_log_is_read_as_the_training_went_in_the_end(tmp_path: Path) -> None:
    before = [step(1, 9.0), step(2, 8.0), evaluated(2, 0.1), step(3, 7.0), evaluated(3, 0.2), step(4, 6.0)]
    after = [step(3, 5.0), evaluated(3, 0.3)]  # from the checkpoint behind step 2
    path = write_log(tmp_path / "log.jsonl", before + after, tail='{"event": "step", "sta')
    steps, evaluations = read_log(path)
    assert [(record["x"], record["loss"]) for record in steps] == [(1, 9.0), (2, 8.0), (3, 5.0)]
    assert [(record["x"], record["mAP"]) for record in evaluations] == [(2, 0.1), (3, 0.3)]


@pytest.mark.parametrize("counts", ["per-stage", "through"])
def test_stages_follow_one_another_however_their_steps_count(tmp_path: Path, counts: str) -> None:
    first = 1 if counts == "per-stage" else 4
    records = [step(1, 3.0), step(2, 2.0), step(3, 1.0), evaluated(3, 0.1)]
    records += [step(first, 0.5, "whole"), step(first + 1, 0.4, "whole"), evaluated(first + 1, 0.2, "whole")]
    steps, evaluations = read_log(write_log(tmp_path / "log.jsonl", records))
    assert [record["x"] for record in steps] == [1, 2, 3, 4, 5]
    assert [record["x"] for record in evaluations] == [3, 5]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([], id="empty"),
        pytest.param([step(1, 2.0)], id="one-step"),
        pytest.param([step(1, math.nan), step(2, math.inf), step(3, 1.0)], id="not-finite"),
        pytest.param([step(n, 1 / n, CELoss=0.5, DCHLoss=0.2, accuracy=0.1) for n in range(1, 200)], id="parts"),
        pytest.param([step(1, 2.0), evaluated(1, 0.4), evaluated(1, 0.5)], id="evaluated"),
        pytest.param([step(1, 2.0, "a $x$ 阶段"), step(1, 1.0, "b_1^2$")], id="stage-names"),
        pytest.param([{**step(n, 1.0), "lr": 10.0**-n} for n in range(1, 7)], id="learning-rates-far-apart"),
    ],
)
def test_training_curves_are_drawn_whatever_was_logged(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    target = tmp_path / "new" / "curves.png"
    assert plot_training(write_log(tmp_path / "log.jsonl", records), target) == target
    assert read_image(target).shape[1] > 800
    assert [path.name for path in target.parent.iterdir()] == ["curves.png"]


def test_the_curves_show_the_loss(tmp_path: Path) -> None:
    images = []
    for name, sign in (("falling", -1), ("rising", 1)):
        log = write_log(tmp_path / f"{name}.jsonl", [step(n, 5 + sign * n / 100) for n in range(1, 400)])
        images.append(read_image(plot_training(log, tmp_path / f"{name}.png")))
    height, width = images[0].shape[:2]
    top = slice(height // 30, height // 3 - height // 12)
    for image, left_is_higher in zip(images, (True, False), strict=True):
        blue = (image[top, :, 0].astype(int) - image[top, :, 2]) > 100
        heights = [np.nonzero(blue[:, part])[0].mean() for part in (slice(width // 2), slice(width // 2, width))]
        assert (heights[0] < heights[1]) == left_is_higher  # rows count from above


def an_evaluation(bits: int, noise: float) -> Evaluation:
    rng = np.random.default_rng(bits)
    labels = rng.integers(0, 4, 60)
    codes = np.packbits(rng.integers(0, 2, (4, bits))[labels] ^ (rng.random((60, bits)) < noise), axis=1)
    return evaluate_codes(codes[:20], codes[20:], labels[:20], labels[20:], precision_topk=(1, 5))


def test_precision_recall_takes_many_models_of_any_name(tmp_path: Path) -> None:
    evaluations = {name: an_evaluation(48, 0.2) for name in ("DCH", "tanh $x_1", "_hidden", *"abcdefgh")}
    nothing = evaluate_codes(np.zeros((1, 1), np.uint8), np.ones((2, 1), np.uint8), np.zeros(1, int), np.ones(2, int))
    read_image(plot_precision_recall(evaluations | {"nothing found": nothing}, tmp_path / "curve.png"))


@pytest.mark.parametrize("bits", [8, 512])
def test_constant_bits_stand_out(tmp_path: Path, bits: int) -> None:
    labels = np.arange(40) % 2
    even = np.packbits(np.tile(np.arange(40)[:, None] % 2, bits), axis=1)
    odd = even.copy()
    odd[:, : bits // 16] = 255
    orange = []
    for number, codes in enumerate((even, odd)):
        evaluation = evaluate_codes(codes, codes, labels, labels)
        image = read_image(plot_bit_balance(evaluation, tmp_path / f"{number}.png")).astype(int)
        orange.append(int(((image[:, :, 2] - image[:, :, 0]) > 150).sum()))
    assert orange[0] == 0 if bits == 8 else orange[0] < orange[1]
    assert bits == 8 or orange[1] > 1000


COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200)}


def shown(label: str, label_id: int, distance: int | None = None, shape: tuple[int, int] = (40, 60)) -> Shown:
    colour = COLOURS.get(label, (90, 90, 90))
    return Shown(np.full((*shape, 3), colour, np.uint8), label, label_id, distance)


def test_frames_say_which_neighbours_have_the_querys_class(tmp_path: Path) -> None:
    frames = []
    for label, label_id in (("red", 0), ("blue", 1)):
        row = (shown("red", 0), [shown(label, label_id, 3) for _ in range(3)])
        image = read_image(plot_neighbours([row], tmp_path / "grid.png", "title"))[:, :, ::-1].astype(int)
        # Okabe and Ito's bluish green and vermillion.
        frames.append(
            [int((np.abs(image - colour).sum(axis=2) < 12).sum()) for colour in ((0, 158, 115), (213, 94, 0))]
        )
    (green_if_same, orange_if_same), (green_if_other, orange_if_other) = frames
    assert green_if_same > 1000
    assert orange_if_same == 0
    assert green_if_other == 0
    assert orange_if_other > 1000


@pytest.mark.parametrize(
    "label", ["统一冰红茶 500ml", "ペットボトル", "a$b_c^d$", "\U0001f375 tea", "tab\tand\nline", "x" * 300, ""]
)
def test_any_class_name_can_be_written(tmp_path: Path, label: str) -> None:
    neighbours = [shown(label, 4, 7), shown("red", 0, 9, (1, 900)), shown("blue", 1, 512, (900, 2))]
    image = read_image(
        plot_neighbours([(shown(label, 4), neighbours), (shown("red", 0), [])], tmp_path / "a.png", label)
    )
    assert image.std() > 0


def test_queries_are_spread_over_the_classes() -> None:
    labels = np.array([5, 5, 5, 1, 1, 9, 3, 3, 7])
    assert labels[choose_queries(labels, 3)].tolist() == [1, 3, 7]
    assert labels[choose_queries(labels, 5)].tolist() == [1, 3, 5, 7, 9]
    assert choose_queries(labels, 7).tolist() == [3, 4, 6, 7, 0, 8, 5]
    assert sorted(choose_queries(labels, 100).tolist()) == list(range(9))


def test_tables_put_models_side_by_side() -> None:
    evaluations = {"a|b": an_evaluation(48, 0.1), "c": an_evaluation(16, 0.1)}
    table = {line[0]: line[1:] for line in rows(evaluations)}
    assert table["mAP"] == [f"{evaluation.mean_average_precision:.4f}" for evaluation in evaluations.values()]
    assert table["Precision@5"][0] == f"{evaluations['a|b'].precision[5]:.4f}"
    assert table["bits"] == ["48", "16"]
    lines = to_markdown(evaluations).splitlines()
    assert lines[:2] == [r"| figure | a\|b | c |", "| --- | ---: | ---: |"]
    assert all(line.replace(r"\|", "").count("|") == 4 for line in lines[: 2 + len(table)])


def test_drawing_leaves_pyplot_alone_and_may_run_in_threads(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [step(n, 1 / n) for n in range(1, 50)])
    with ThreadPoolExecutor(2) as pool:
        targets = list(pool.map(lambda number: plot_training(log, tmp_path / f"{number}.png"), range(2)))
    assert np.array_equal(*(read_image(target) for target in targets))
    assert "matplotlib.pyplot" not in sys.modules


def test_characters_that_no_font_has_are_not_drawn_as_boxes() -> None:
    lettering = Lettering()
    assert lettering.can_write("Ärger ✓✗… ½")
    assert not lettering.can_write("\U0010fffd")
    assert lettering.line("a \U0010fffd\n b") == "a ? b"
    assert lettering.line("abcdef", longest=4) == "abc…"
