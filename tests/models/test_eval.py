"""Evaluation from pictures to figures: with an encoder whose codes can be told by hand, and with real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from models.eval import Candidate, evaluate_all, main
from models.inference import STARTER_HASHER, Hasher
from models.training.config import Config, ConfigError, LoaderConfig
from models.training.config_file import load_config
from models.training.data.datasets import DatasetError, load_datasets
from models.training.evaluation import evaluate, hasher_encoder, match_labels, measure, open_evaluated
from models.training.loop import train

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


def source(folder: Path, batch_size: int) -> dict[str, Any]:
    """A section of DataLoader that reads what :func:`draw` made."""
    return {
        "dataset": {
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [
                {"ResizeImage": {"size": 32}},
                {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
                {"ToCHWImage": None},
            ],
        },
        "sampler": {"batch_size": batch_size, "drop_last": False, "shuffle": False},
    }


def write_config(path: Path, query: Path, gallery: Path) -> Path:
    content = {
        "Global": {"name": "colours", "output_dir": str(path.parent / "out"), "epochs": 1, "device": "cpu"},
        "Arch": {
            "name": "RecModel",
            "Backbone": {"name": "MobileNetV1", "class_num": 16, "pretrained": False},
            "Neck": {"name": "Tanh"},
            "Head": {"name": "FC", "embedding_size": 16, "class_num": "auto"},
        },
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {"name": "SGD", "lr": {"name": "Constant", "learning_rate": 0.01}},
        "DataLoader": {"Train": source(gallery, 4), "Eval": {"Query": source(query, 4), "Gallery": source(gallery, 5)}},
        "Metric": {"Eval": [{"Recallk": {"topk": [1, 2]}}, {"Precisionk": {"topk": [1, 3]}}, {"mAP": {}}]},
    }
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    query, gallery = draw(tmp_path / "query", QUERIES, 2), draw(tmp_path / "gallery", GALLERY, 3)
    return write_config(tmp_path / "colours.yaml", query, gallery)


@pytest.fixture
def config(config_path: Path) -> Config:
    return load_config(config_path)


def part(folder: Path) -> LoaderConfig:
    """The pictures of :func:`draw` as gallery and queries of a configuration."""
    path = write_config(folder.with_suffix(".yaml"), folder, folder)
    return load_config(path).gallery


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
        pictures = [cv2.resize(cv2.imread(str(folder / name)), (32, 32))[:, :, ::-1] for name, _ in rows]
        means = [picture.mean(axis=(0, 1)) / 127.5 - 1 for picture in pictures]
        return [((thresholds(mean[None])[0] > 0).tolist(), label) for mean, (_, label) in zip(means, rows, strict=True)]

    found = []
    gallery = read(kept)
    shuffled = np.random.default_rng(0).permutation(len(gallery)).tolist()  # ties rank by the place there
    for number, (code, label) in enumerate(read(asked)):
        near = [
            (sum(a != b for a, b in zip(code, other, strict=True)), shuffled.index(position), label == other_label)
            for position, (other, other_label) in enumerate(gallery)
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

    strange = replace(config, query=part(draw(tmp_path / "strange", {"zinc": (1, 2, 3)}, 2)))
    with pytest.raises(DatasetError, match=r"no query has another picture .* of zinc; the gallery is of ash, brick, "):
        evaluate(strange, never, *load(strange))
    lonely = part(draw(tmp_path / "lonely", GALLERY, 1))
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

    with pytest.raises(ConfigError, match="several models are called 'a': name them"):
        run(config, [Candidate("a", tmp_path, never), Candidate("a", tmp_path, never)], tmp_path)


def command(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_a_table_and_says_where_the_rest_is(config_path: Path, tmp_path: Path) -> None:
    done = command("-c", config_path, "--model", f"the starter={STARTER_HASHER}", "--output", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "figures" / "metrics.json").read_text("utf-8"))
    assert written["model"] == "the starter"
    assert f"{written['mAP']:.4f}" in done.stdout
    assert "the starter" in done.stdout
    assert "figures" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "final.pdparams"),
        (["--weights", "nowhere/best.pdparams"], "nowhere/best.pdparams"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "..=nowhere"], "not NAME=PATH"),
        (["-o", "Global.devise=cpu"], "devise"),
        (["-o", "DataLoader.Eval=null"], "DataLoader.Eval.Query"),
    ],
)
def test_what_cannot_be_evaluated_is_named(config_path: Path, arguments: list[str], message: str) -> None:
    done = command("-c", config_path, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")  # Paddle, of every batch norm
def test_the_best_weights_of_a_training_give_the_figures_of_its_log(config_path: Path, tmp_path: Path) -> None:
    config = load_config(config_path, ["Global.eval_during_train=true", "Global.epochs=2"])
    train(config, Console(quiet=True))
    records = [json.loads(line) for line in (config.output_dir / "train.jsonl").read_text("utf-8").splitlines()]
    best = max((record for record in records if record["event"] == "eval"), key=lambda record: record["mAP"])
    done = command("-c", config_path)
    assert done.exit_code == 0, done.output
    written = json.loads((config.output_dir / "eval" / "metrics.json").read_text("utf-8"))
    assert written["model"] == "best"
    names = {"recall1", "recall2", "mAP", "precision@1", "precision@3", "mAP@radius2", "precision@radius2"}
    assert {name: written[name] for name in names} == pytest.approx({name: best[name] for name in names})


def test_one_code_for_everything_is_not_rewarded_by_the_order_of_the_list(tmp_path: Path) -> None:
    """Four classes of 25, sorted: by position alone the queries of the first class would find nothing else."""
    folder = draw(tmp_path / "pictures", GALLERY, 25)
    lines = sorted((folder / "list.txt").read_text("utf-8").splitlines(), key=lambda line: line.split("\t")[1])
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    config = load_config(write_config(tmp_path / "config.yaml", folder, folder))
    query, gallery = open_evaluated(config)
    codes = np.zeros((100, 2), np.uint8)
    evaluation = measure(config, codes, codes, query, gallery)
    assert evaluation.recall[1] == pytest.approx(0.25, abs=0.02)
    assert evaluation.mean_average_precision == pytest.approx(0.27, abs=0.03)
