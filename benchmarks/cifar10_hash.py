"""What do the deep-hash methods bring? One network and schedule, four losses, CIFAR-10, 48 bits.

`--train` trains what is not trained yet (resumable; `make deep-hash`); without it the trained networks in
output/cifar10_hash are measured, and the benchmark is skipped where there are none. The split is our own: of the
1,500 pictures a class, 1,000 to train, 400 in the database that is searched, 100 queries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from common import options, tables

from models.entry_point import tune_cpu

if TYPE_CHECKING:
    from models.training.config import Config

METHODS = ("CE", "DCH", "DSHSD", "LCDSH")
CONFIGS = options.ROOT / "models" / "configs" / "DeepHash" / "CIFAR10_MobileNetV1"
PICTURES = options.ROOT / "data" / "cifar10"
OUTPUT = options.ROOT / "output" / "cifar10_hash"
SPLIT = {"train": 1000, "database": 400, "query": 100}
RANDOM_HEADS = 5
CENTRED_ON = 2000  # training pictures
BITS = 48
SHOWN = ("mAP", "mAP@radius2", "precision@radius2", "empty@radius2")


def main() -> int:
    """Run the benchmark."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments.add_argument("--train", action="store_true", help="train first (an hour on two cores)")
    arguments.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    options.add_shared(arguments)
    chosen = arguments.parse_args()
    tune_cpu()
    data = options.shared_data(chosen, "cifar10_train.tar", "pretrained/mobilenet_v1_1.0_224_imagenet.npz")
    prepare(data / "cifar10_train.tar")
    pretrained = data / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz"
    if chosen.train:
        for method in chosen.methods:
            train(method, pretrained)
    trained = [method for method in chosen.methods if (OUTPUT / method / "cost.json").is_file()]
    if not trained:
        print("Skipped: nothing is trained yet; --train does it (make deep-hash).", file=sys.stderr)
        return 0
    rows = [
        baseline("random projection of ImageNet features", pretrained, centred=False),
        baseline("untrained head", pretrained, centred=True),
    ]
    rows += [row(method, measure(method, pretrained), read_cost(method)) for method in trained]
    tables.show(
        f"CIFAR-10, {BITS} bits: 1,000 queries in a database of 4,000 after training on 10,000",
        ["method", "mAP", "mAP, radius 2", "precision, radius 2", "nothing inside", "CPU minutes", "minutes"],
        rows,
        [
            f"The first two rows are means over {RANDOM_HEADS} random heads, the second behind batch norm. Radius 2: "
            "the ranking is cut where the Hamming distance exceeds 2; a query with nothing inside counts 0."
        ],
        markdown=chosen.markdown,
    )
    return 0


def prepare(archive: Path) -> None:
    """Unpack the pictures once and write the lists of the split."""
    if not (PICTURES / "query.txt").exists():
        PICTURES.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(PICTURES, filter="data")
        rng = np.random.default_rng(0)
        lists: dict[str, list[str]] = {name: [] for name in SPLIT}
        for folder in sorted(path for path in PICTURES.iterdir() if path.is_dir()):
            files = sorted(path.name for path in folder.iterdir())
            order = iter(rng.permutation(len(files)).tolist())
            for name, count in SPLIT.items():
                lists[name] += [f"{folder.name}/{files[next(order)]}\t{folder.name}" for _ in range(count)]
        for name, lines in lists.items():
            (PICTURES / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(method: str, pretrained: Path) -> None:
    """Train a method to its end, adding up what it costs over interruptions."""
    if (OUTPUT / method / "final.pdparams").exists() and (OUTPUT / method / "cost.json").exists():
        return
    print(f"== training {method}", file=sys.stderr)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = run("models.train", method, pretrained, "--resume")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    earlier = read_cost(method) if (OUTPUT / method / "cost.json").exists() else {"cpu_s": 0.0, "wall_s": 0.0}
    cost = {"cpu_s": earlier["cpu_s"] + cpu_s, "wall_s": earlier["wall_s"] + time.perf_counter() - started}
    (OUTPUT / method / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    if done.returncode:
        raise SystemExit(done.returncode)


def measure(method: str, pretrained: Path) -> dict[str, float]:
    """Evaluate the trained weights, as everybody does."""
    folder = OUTPUT / method / "eval"
    weights = OUTPUT / method / "final.pdparams"
    run("models.eval", method, pretrained, "--weights", str(weights), "--output", str(folder)).check_returncode()
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def run(module: str, method: str, pretrained: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Start an entry point with a method's configuration, from the root of the repository."""
    command = [sys.executable, "-m", module, "-c", str(CONFIGS / f"{method}.yaml"), *arguments]
    command += ["-o", f"Arch.Backbone.pretrained={pretrained.resolve()}"]
    # Only the table of all methods goes to the standard output.
    return subprocess.run(command, cwd=options.ROOT, check=False, stdout=sys.stderr)


def read_cost(method: str) -> dict[str, float]:
    """CPU and wall seconds of a method's training."""
    return json.loads((OUTPUT / method / "cost.json").read_text(encoding="utf-8"))


def baseline(title: str, pretrained: Path, *, centred: bool) -> list[str]:
    """The network of the CE configuration before its first step: the mean over random heads.

    Args:
        title: of the row.
        pretrained: ImageNet weights.
        centred: with the batch norm before the head, its statistics those of training pictures; else without it.
    """
    import paddle

    from models.training.config_file import load_config
    from models.training.evaluation import evaluate, evaluated_size, open_evaluated
    from models.training.model import frozen_features, initial_weights

    overrides = [f"Arch.Backbone.pretrained={pretrained}", f"Arch.Backbone.norm={str(centred).lower()}"]
    config = load_config(CONFIGS / "CE.yaml", overrides)
    statistics = embedding_statistics(config, pretrained) if centred else {}
    figures = []
    for seed in range(RANDOM_HEADS):
        paddle.seed(seed)
        weights, _ = initial_weights(config, config.class_num or 1, lambda _: None)
        encode = frozen_features(config, weights | statistics, evaluated_size(config))
        figures.append(evaluate(config, encode, *open_evaluated(config)).to_json())
    return row(title, {key: float(np.mean([one[key] for one in figures])) for key in SHOWN})


def embedding_statistics(config: Config, pretrained: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Mean and variance of the ImageNet embedding, float32 (1024,) each, as the batch norm's statistics."""
    from models import nets
    from models.training.data.datasets import load_datasets
    from models.training.data.loader import batches
    from models.training.data.transforms import Transforms
    from models.training.model import freeze
    from models.training.pretrained import apply_pretrained, load_pretrained

    backbone = nets.build("MobileNetV1")
    apply_pretrained(backbone, load_pretrained("MobileNetV1", str(pretrained)))
    transforms = Transforms.from_ops(config.train.transform_ops)
    embed = freeze(backbone, (3, *transforms.size))
    dataset = load_datasets(config.train.datasets, config.class_num)
    order = np.random.default_rng(0).permutation(len(dataset))[:CENTRED_ON].reshape(-1, 50)
    rows = np.concatenate([embed(batch.views)[0] for batch in batches(dataset, transforms, order, seed=None)])
    return {"backbone.norm._mean": rows.mean(axis=0), "backbone.norm._variance": rows.var(axis=0)}


def row(title: str, figures: dict[str, float], cost: dict[str, float] | None = None) -> list[str]:
    """One line of the table."""
    minutes = ["", ""] if cost is None else [f"{cost['cpu_s'] / 60:.0f}", f"{cost['wall_s'] / 60:.0f}"]
    return [title, *(f"{figures[key]:.3f}" for key in SHOWN), *minutes]


if __name__ == "__main__":
    sys.exit(main())
