"""Evaluation from pictures to figures: with an encoder whose codes can be told by hand, and with real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from models.eval import Candidate, evaluate_all
from models.inference import STARTER_HASHER, Hasher
from models.training.config import (
    Arch,
    Config,
    ConfigError,
    LoaderConfig,
    Metrics,
    OptimizerConfig,
    Sampler,
    Schedule,
    Stage,
)
from models.training.datasets import DatasetError, load_datasets
from models.training.evaluation import evaluate, hasher_encoder, match_labels

OPS = ({"ResizeImage": {"size": 32}}, {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3}}, {"ToCHWImage": None})
# Colours (RGB) of two to three shades a class; the classes are named so that queries and gallery number them apart.
GALLERY = {"moss": (40, 120, 20), "brick": (170, 60, 40), "sky": (110, 180, 230), "ash": (90, 90, 90)}
QUERIES = {"sky": (100, 170, 240), "brick": (160, 70, 30), "zinc": (200, 200, 210)}


def draw(folder: Path, colours: dict[str, tuple[int, int, int]], copies: int) -> Path:
    """Pictures of a noisy colour a class, and their list."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(colours))
    lines = []
    for copy in range(copies):
        for name, colour in colours.items():
            picture = np.clip(np.array(colour) + rng.integers(-25, 26, 3) + rng.integers(-9, 10, (40, 44, 3)), 0, 255)
            cv2.imwrite(str(folder / f"{name}{copy}.png"), picture[:, :, ::-1])
            lines.append(f"{name}{copy}.png\t{name}")
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    return folder


def loader(folder: Path, batch_size: int) -> LoaderConfig:
    source = {"image_root": str(folder), "cls_label_path": str(folder / "list.txt")}
    sampler = Sampler("BatchSampler", batch_size, shuffle=False, drop_last=False)
    return LoaderConfig((MappingProxyType(source),), OPS, sampler)


def make_config(query: LoaderConfig | None, gallery: LoaderConfig | None, output: Path) -> Config:
    optimizer = OptimizerConfig("SGD", Schedule("Constant", 0.1))
    backbone = {"name": "MobileNetV1", "class_num": 16}
    return Config(
        name="colours",
        seed=1,
        device="cpu",
        output_dir=output,
        checkpoints=None,
        pretrained_model=None,
        save_interval=0,
        save_interval_s=60.0,
        eval_during_train=False,
        eval_interval=1,
        print_batch_step=10,
        image_shape=None,
        save_inference_dir=None,
        feature_normalize=False,
        binarize="sign",
        ema_decay=None,
        arch=Arch(backbone, pretrained=False, use_ssld=False, neck={"name": "Tanh"}, head=None),
        losses=(),
        stages=(Stage("all", 1, 4, optimizer),),
        amp=None,
        train=gallery or query,
        query=query,
        gallery=gallery,
        metrics=Metrics(recall_topk=(1, 2), precision_topk=(1, 3)),
    )


@pytest.fixture
def config(tmp_path: Path) -> Config:
    query = loader(draw(tmp_path / "query", QUERIES, 2), batch_size=4)
    gallery = loader(draw(tmp_path / "gallery", GALLERY, 3), batch_size=5)
    return make_config(query, gallery, tmp_path / "out")


def load(config: Config) -> tuple[Any, Any]:
    return load_datasets(config.query.datasets), load_datasets(config.gallery.datasets)


def thresholds(mean: np.ndarray) -> np.ndarray:
    """24 features of a mean colour (n, 3) in -1..1: on which side of eight levels each channel lies."""
    return (mean[:, :, None] - np.linspace(-0.9, 0.9, 8)).reshape(len(mean), 24).astype(np.float32)


def by_mean_colour(views: np.ndarray) -> np.ndarray:
    assert views.dtype == np.float32
    assert views.shape[1:] == (3, 32, 32)
    return thresholds(views.mean(axis=(2, 3)))


def rankings(asked: Path, kept: Path, exclude_self: bool = False) -> list[list[bool]]:
    """Whether each gallery picture, nearest first, has the query's class: by hand, from the files."""

    def read(folder: Path) -> list[tuple[list[bool], str]]:
        rows = [line.split("\t") for line in (folder / "list.txt").read_text("utf-8").splitlines()]
        means = [cv2.imread(str(folder / name))[:, :, ::-1].mean(axis=(0, 1)) / 127.5 - 1 for name, _ in rows]
        return [((thresholds(mean[None])[0] > 0).tolist(), label) for mean, (_, label) in zip(means, rows, strict=True)]

    found = []
    for number, (code, label) in enumerate(read(asked)):
        near = [
            (sum(a != b for a, b in zip(code, other, strict=True)), position, label == other_label)
            for position, (other, other_label) in enumerate(read(kept))
            if not (exclude_self and position == number)
        ]
        found.append([same for _, _, same in sorted(near)])
    return found


def test_figures_are_those_of_ranking_by_hand(config: Config, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = evaluate(config, by_mean_colour, *load(config), lambda *place: seen.append(place))
    ranked = rankings(tmp_path / "query", tmp_path / "gallery")
    answerable = [ranking for ranking in ranked if any(ranking)]
    assert (
        (found.bits, found.queries, found.gallery, found.answerable) == (24, 6, 12, len(answerable)) == (24, 6, 12, 4)
    )
    for k in (1, 2):
        assert found.recall[k] == pytest.approx(np.mean([any(ranking[:k]) for ranking in answerable]))
    for k in (1, 3):
        assert found.precision[k] == pytest.approx(np.mean([np.mean(ranking[:k]) for ranking in ranked]))
    precisions = [
        np.mean([sum(ranking[: place + 1]) / (place + 1) for place, same in enumerate(ranking) if same])
        for ranking in answerable
    ]
    assert found.mean_average_precision == pytest.approx(np.mean(precisions))
    assert 0 < found.mean_average_precision < 1
    assert seen == [("query", 4, 6), ("query", 6, 6), ("gallery", 5, 12), ("gallery", 10, 12), ("gallery", 12, 12)]


def test_a_list_searched_in_itself_leaves_the_query_out_and_is_encoded_once(config: Config, tmp_path: Path) -> None:
    config = replace(config, query=config.gallery)
    encoded: list[int] = []

    def encode(views: np.ndarray) -> np.ndarray:
        encoded.append(len(views))
        return by_mean_colour(views)

    found = evaluate(config, encode, *load(config))
    ranked = rankings(tmp_path / "gallery", tmp_path / "gallery", exclude_self=True)
    assert found.precision[3] == pytest.approx(np.mean([np.mean(ranking[:3]) for ranking in ranked]))
    assert found.precision[3] <= 2 / 3  # of three pictures of a class, two are others
    assert sum(encoded) == 12


def test_classes_are_matched_by_name(config: Config) -> None:
    query, gallery = load(config)
    asked, kept = match_labels(config, query, gallery)
    names = [data.class_names[label] for data in (query, gallery) for label in data.labels]
    ids = [*asked.tolist(), *kept.tolist()]
    assert len(set(names)) == len(set(ids)) == len(set(zip(names, ids, strict=True))) == 5
    assert query.class_names.index("sky") != gallery.class_names.index("sky")


def test_pictures_without_a_class_are_distractors_and_no_queries(config: Config) -> None:
    query, gallery = load(config)
    labels = gallery.labels.copy()
    labels[labels == gallery.class_names.index("sky")] = -1
    found = evaluate(config, by_mean_colour, query, replace(gallery, labels=labels))
    assert (found.gallery, found.answerable) == (12, 2)  # skies are still found, and rightly by none
    assert found.precision[1] < evaluate(config, by_mean_colour, query, gallery).precision[1]
    labels = query.labels.copy()
    labels[3:] = -1
    with pytest.raises(DatasetError, match=r"list.txt:4: sky1.png: a query needs a class; 3 of 6 have none"):
        evaluate(config, by_mean_colour, replace(query, labels=labels), gallery)


def test_nothing_to_find_is_an_error_before_anything_is_encoded(config: Config, tmp_path: Path) -> None:
    def never(views: np.ndarray) -> np.ndarray:
        raise AssertionError("encoded")

    strange = replace(config, query=loader(draw(tmp_path / "strange", {"zinc": (1, 2, 3)}, 2), 4))
    with pytest.raises(DatasetError, match=r"no query has another picture .* of zinc; the gallery is of ash, brick, "):
        evaluate(strange, never, *load(strange))
    lonely = loader(draw(tmp_path / "lonely", GALLERY, 1), 4)
    lonely = replace(config, query=lonely, gallery=lonely)
    with pytest.raises(DatasetError, match="no query has another picture of its class"):
        evaluate(lonely, never, *load(lonely))
    with pytest.raises(ConfigError, match=r"DataLoader.Eval.Query and DataLoader.Eval.Gallery"):
        evaluate(replace(config, query=None), never, *load(config))


def test_features_that_are_not_numbers_name_the_picture(config: Config) -> None:
    def broken(views: np.ndarray) -> np.ndarray:
        features = by_mean_colour(views)
        features[-1, 7] = np.nan
        return features

    with pytest.raises(FloatingPointError, match=r"query/list.txt:4: sky1.png: .*not finite"):
        evaluate(config, broken, *load(config))


@pytest.fixture
def weights(config: Config) -> Path:
    """Random weights of the network, as the training writes them."""
    import paddle

    from models.training.checkpoint import save_checkpoint, to_weights
    from models.training.model import build_model

    paddle.seed(4)
    path = config.output_dir / "final.pdparams"
    save_checkpoint(path, to_weights(build_model(config, class_num=1)))
    return path


def run(config: Config, candidates: list[Candidate], folder: Path) -> dict[str, Any]:
    return evaluate_all(config, candidates, folder, Console(quiet=True))


def read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def test_weights_and_their_export_give_the_same_figures(config: Config, weights: Path, tmp_path: Path) -> None:
    from models.eval import _folders, _weights
    from models.export import export
    from models.training.checkpoint import load_weights

    folder = export(config, load_weights(weights), tmp_path / "exported")
    candidates = [*_weights(config, None, with_default=True), *_folders(config, [f"served={folder}"])]
    found = run(config, candidates, tmp_path / "eval")
    assert list(found) == ["final", "served"]
    assert found["final"] == found["served"]
    for name, source in (("final", weights), ("served", folder)):
        own = tmp_path / "eval" / name
        assert {path.name for path in own.iterdir()} == {
            "metrics.json", "metrics.md", "precision_recall.png", "bit_balance.png", "neighbours.png"
        }  # fmt: skip
        written = json.loads((own / "metrics.json").read_text("utf-8"))
        assert (written["model"], written["source"], written["bits"]) == (name, str(source), 16)
        assert written["mAP"] == found[name].mean_average_precision
        assert len(written["precision_recall"]) == 17
    table = (tmp_path / "eval" / "metrics.md").read_text("utf-8")
    assert table.startswith("| figure | final | served |\n")
    value = f"{found['final'].mean_average_precision:.4f}"
    assert f"| mAP | {value} | {value} |" in table
    assert read_image(tmp_path / "eval" / "precision_recall.png").std() > 0


def test_one_model_writes_straight_into_the_folder(config: Config, tmp_path: Path) -> None:
    hasher = Hasher.load(STARTER_HASHER, "cpu")
    starter = Candidate("starter", STARTER_HASHER, lambda: hasher_encoder(hasher))
    found = run(config, [starter], tmp_path / "eval")["starter"]
    assert found.bits == 512
    query, gallery = (load(config)[side] for side in (0, 1))
    codes = [hasher.hash([data.read(index) for index in range(len(data))]) for data in (query, gallery)]
    distances = np.bitwise_count(codes[0][:, None] ^ codes[1][None]).sum(axis=2, dtype=int)
    nearest = distances.argmin(axis=1)
    same = [
        query.class_names[q] == gallery.class_names[g]
        for q, g in zip(query.labels, gallery.labels[nearest], strict=True)
    ]
    assert found.precision[1] == pytest.approx(np.mean(same))
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text("utf-8"))["model"] == "starter"


def test_models_of_one_name_are_refused(config: Config, tmp_path: Path) -> None:
    def never() -> Callable[..., Any]:
        raise AssertionError("loaded")

    with pytest.raises(ConfigError, match="several models are called 'a'"):
        run(config, [Candidate("a", tmp_path, never), Candidate("a", tmp_path, never)], tmp_path)
