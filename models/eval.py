"""Measure how well codes retrieve, or boxes find objects: ``python -m models.eval -c CONFIG.yaml``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.entry_point import explained, start

if TYPE_CHECKING:
    from models.training.config import Config
    from models.training.detection.config import DetectionConfig
    from models.training.evaluation import EncodeDataset
    from models.training.metrics import Evaluation


def main(
    config: Annotated[Path, typer.Option("-c", "--config", help="its DataLoader.Eval says what to evaluate on")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="key.key=value, repeatable")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]FILE of weights, repeatable (default: best, else final.pdparams in output_dir)"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="[NAME=]FOLDER that models.export wrote, repeatable, of any architecture")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="folder to write to (default: output_dir/eval)")] = None,
) -> None:
    """Search the pictures of DataLoader.Eval.Query among those of .Gallery, by Hamming distance.

    Writes metrics.json, metrics.md, precision_recall.png, bit_balance.png and neighbours.png, and prints the table.
    Several models are compared in one metrics.md and precision_recall.png; each has the rest in a folder of its name.

    Of detectors it measures how often the best box, or one of the best five, is an object of DataLoader.Eval, and the
    average precision; it writes metrics.json, metrics.md and, for each, boxes_NAME.png with boxes on photos.
    """
    # Imported here, so that --help does not wait for Paddle.
    from models.inference import ModelError
    from models.training.config import ConfigError
    from models.training.config_file import load_config
    from models.training.data.datasets import DatasetError
    from models.training.detection.config import DetectionConfig
    from models.training.reports.tables import to_table

    console = Console(stderr=True)
    with explained(console, ConfigError, DatasetError, ModelError, FloatingPointError, ModuleNotFoundError, OSError):
        settings = load_config(config, override or ())
        folder = output or settings.output_dir / "eval"
        if isinstance(settings, DetectionConfig):
            Console().print(_compare_detectors(settings, weights, model, folder, console))
            console.print(f"wrote {folder}", highlight=False)
            return
        candidates = _weights(settings, weights, with_default=not model) + _folders(settings, model or [])
        evaluations = evaluate_all(settings, candidates, folder, console)
    Console().print(to_table(evaluations, settings.name))
    console.print(f"wrote {folder}", highlight=False)


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate: its ``name`` for people, where it comes from, and ``load``, which makes it encode."""

    name: str
    source: Path
    load: Callable[[], EncodeDataset]


def evaluate_all(
    config: Config, candidates: Sequence[Candidate], folder: Path, console: Console
) -> dict[str, Evaluation]:
    """Evaluate models on the same pictures and write everything.

    Args:
        config: its ``query`` and ``gallery`` are the pictures.
        candidates: the models, by different names.
        folder: where tables and figures go; for several models, also one folder each in it.
        console: shows the progress.

    Returns:
        The evaluations by name.

    Raises:
        ConfigError, DatasetError, ModelError, OSError: what was asked for cannot be evaluated or written.
        FloatingPointError: a network's features are not finite.
    """
    from models.training.config import ConfigError
    from models.training.evaluation import encode_both, match_labels, measure, open_evaluated, same_pictures
    from models.training.reports.neighbours import find_neighbours, plot_neighbours

    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ConfigError(f"several models are called {max(names, key=names.count)!r}: name them with NAME=PATH")
    query, gallery = open_evaluated(config)
    labels = match_labels(config, query, gallery)
    encoders = [candidate.load() for candidate in candidates]  # all of them before anything takes time
    evaluations = {}
    for candidate, encoder in zip(candidates, encoders, strict=True):
        own = folder / candidate.name if len(candidates) > 1 else folder
        with _progress(console, candidate.name) as progress:
            codes = encode_both(config, encoder, query, gallery, progress)
        evaluation = evaluations[candidate.name] = measure(config, *codes, query, gallery)
        write_evaluation(candidate, evaluation, own)
        rows = find_neighbours(codes, (query, gallery), labels, exclude_self=same_pictures(config, query, gallery))
        title = f"{candidate.name}: {evaluation.bits} bits, mAP {evaluation.mean_average_precision:.3f}"
        plot_neighbours(rows, own / "neighbours.png", title)
    if len(candidates) > 1:
        write_comparison(evaluations, folder)
    return evaluations


def write_evaluation(candidate: Candidate, evaluation: Evaluation, folder: Path) -> None:
    """Write metrics.json, the comparison of one, and bit_balance.png."""
    from models.training.reports.plots import plot_bit_balance

    content = {"model": candidate.name, "source": str(candidate.source), **evaluation.to_json()}
    folder.mkdir(parents=True, exist_ok=True)
    # A line a key: the curves are long, and one number a line would bury the figures.
    lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items())
    (folder / "metrics.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    plot_bit_balance(evaluation, folder / "bit_balance.png")
    write_comparison({candidate.name: evaluation}, folder)


def write_comparison(evaluations: Mapping[str, Evaluation], folder: Path) -> None:
    """Write metrics.md and precision_recall.png."""
    from models.training.reports.plots import plot_precision_recall
    from models.training.reports.tables import to_markdown

    (folder / "metrics.md").write_text(to_markdown(evaluations), "utf-8")
    plot_precision_recall(evaluations, folder / "precision_recall.png")


def _weights(config: Config, wanted: Sequence[str] | None, *, with_default: bool) -> list[Candidate]:
    from models.training.checkpoint import trained_weights

    if not wanted and with_default:
        wanted = [str(trained_weights(config.output_dir))]

    def candidate(text: str) -> Candidate:
        name, path = _named(text)
        return Candidate(name or path.stem, path, lambda: _load_weights(config, path))

    return [candidate(text) for text in wanted or ()]


def _folders(config: Config, wanted: Sequence[str]) -> list[Candidate]:
    from models.inference import Hasher
    from models.training.evaluation import hasher_encoder

    def candidate(text: str) -> Candidate:
        name, path = _named(text)
        return Candidate(
            name or path.resolve().name, path, lambda: hasher_encoder(Hasher.load(path, device=config.device))
        )

    return [candidate(text) for text in wanted]


def _load_weights(config: Config, path: Path) -> EncodeDataset:
    from models.training.checkpoint import load_weights
    from models.training.devices import start_devices
    from models.training.evaluation import evaluated_size, network_encoder
    from models.training.model import frozen_features

    size = evaluated_size(config)
    start_devices(config.device)
    return network_encoder(config, frozen_features(config, load_weights(path), size, source=str(path)))


def _compare_detectors(
    config: DetectionConfig, weights: list[str] | None, folders: list[str] | None, folder: Path, console: Console
) -> Table:
    """Measure detectors, by weights and by exported folders."""
    from models.inference import Detector
    from models.training.checkpoint import load_weights, trained_weights
    from models.training.detection.compare import Candidate as DetectorCandidate
    from models.training.detection.compare import compare_detectors, table_rows
    from models.training.detection.detector import in_memory_detector
    from models.training.devices import start_devices

    start_devices(config.device)
    candidates = []
    for text in weights or ([] if folders else [str(trained_weights(config.output_dir))]):
        name, path = _named(text)
        load = partial(in_memory_detector, config, load_weights(path))
        candidates.append(DetectorCandidate(name or path.stem, path, load))
    for text in folders or ():
        name, path = _named(text)
        detector = Detector.load(path, config.device)
        candidates.append(DetectorCandidate(name or path.resolve().name, path, partial(nullcontext, detector)))
    with _progress(console, "photos") as progress:
        results = compare_detectors(config, candidates, folder, progress)
    table = Table("figure", *(escape(name) for name in results), title=escape(config.name), title_justify="left")
    for row in table_rows(results):
        table.add_row(*row)
    return table


def _named(text: str) -> tuple[str, Path]:
    """Part ``NAME=PATH``; a path alone may hold ``=`` behind a slash. A name is a folder's, too."""
    from models.training.config import ConfigError

    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        return "", Path(text)
    if name in ("", ".", "..") or not path:
        raise ConfigError(f"{text!r} is not NAME=PATH with a name that a folder can have")
    return name, Path(path)


@contextmanager
def _progress(console: Console, model: str) -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, int] = {}

        def update(part: str, done: int, total: int) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task(escape(f"{model} {part}"), total=total)
            progress.update(tasks[part], completed=done)

        yield update


if __name__ == "__main__":
    start(main)
