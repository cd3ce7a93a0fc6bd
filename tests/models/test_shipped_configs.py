"""The four shipped configurations at their own size: checked, and two steps on real photos (``make test-slow``).

The published weights are not loaded, since they are on the internet; everything else is as shipped but the batch.
"""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

CONFIGS = Path(__file__).parent.parent.parent / "models" / "configs"
PHOTOS = 16
CLASSES = 185_341

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen photos of Caltech-101, and a list that gives them classes up to the last of PP-ShiTu's."""
    folder = tmp_path_factory.mktemp("photos")
    with tarfile.open(shared / "data" / "caltech.tar") as tar:
        members = [member for member in tar if member.isfile() and member.name.endswith(".jpg")][:: 3000 // PHOTOS]
        chosen = members[:PHOTOS]
        for member in chosen:
            tar.extract(member, folder, filter="data")
    labels = np.linspace(0, CLASSES - 1, PHOTOS // 2).astype(int).repeat(2)
    lines = [f"{member.name} {label}" for member, label in zip(chosen, labels, strict=True)]
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def cifar10(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real CIFAR-10 pictures in the layout of its python archive, a few of them."""
    path = tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz"
    with tarfile.open(shared / "data" / "cifar10_train.tar") as source:
        members = sorted((member for member in source if member.isfile()), key=lambda member: Path(member.name).name)
        names = sorted({member.name.split("/")[0] for member in members})
        rows, labels = [], []
        for member in members[: 6 * PHOTOS]:
            data = np.frombuffer(source.extractfile(member).read(), np.uint8)  # type: ignore[union-attr]
            rows.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].transpose(2, 0, 1).reshape(-1))
            labels.append(names.index(member.name.split("/")[0]))
    batches = {f"data_batch_{number}": slice(number - 1, 5 * PHOTOS, 5) for number in range(1, 6)}
    batches["test_batch"] = slice(5 * PHOTOS, None)
    with tarfile.open(path, "w:gz") as tar:
        for name, part in batches.items():
            content = pickle.dumps({b"data": np.stack(rows[part]), b"labels": labels[part]}, protocol=4)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def run(config: str, *overrides: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "models.train", "-c", str(CONFIGS / config)]
    command += [word for override in overrides for word in ("-o", override)]
    return subprocess.run(
        command + ["--check"] * check, capture_output=True, text=True, check=False, cwd=CONFIGS.parent.parent
    )


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text("utf-8").splitlines()]
    return [record["loss"] for record in records if record["event"] == "step"]


@pytest.mark.parametrize("name", ["DCH", "DSHSD", "LCDSH"])
def test_deep_hash(name: str, cifar10: Path, tmp_path: Path) -> None:
    parts = ("Train.dataset", "Eval.Query.dataset", "Eval.Gallery.dataset")
    data = [f"DataLoader.{part}.data_file={cifar10}" for part in parts]
    general = ["Arch.Backbone.pretrained=false", f"Global.output_dir={tmp_path}"]
    checked = run(f"DeepHash/{name}.yaml", *general, *data, check=True)
    assert checked.returncode == 0, checked.stderr
    # 80 pictures make ten batches of eight: a fifth of an epoch are two steps.
    short = ["Global.epochs=0.2", "DataLoader.Train.sampler.batch_size=8", "Global.eval_during_train=false"]
    done = run(f"DeepHash/{name}.yaml", *general, *data, *short)
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path)) == 2
    assert np.isfinite(losses(tmp_path)).all()


def test_ppshitu_binary(photos: Path, tmp_path: Path) -> None:
    config = "GeneralRecognition/GeneralRecognition_PPLCNet_x2_5_binary.yaml"
    parts = ("Train.dataset", "Eval.Query.dataset", "Eval.Gallery.dataset")
    data = [f"DataLoader.{part}.image_root={photos}" for part in parts]
    data += [f"DataLoader.{part}.cls_label_path={photos / 'list.txt'}" for part in parts]
    general = ["Arch.Backbone.pretrained=false", f"Global.output_dir={tmp_path}"]
    checked = run(config, *general, *data, check=True)
    assert checked.returncode == 0, checked.stderr
    assert "185,341" in checked.stderr
    done = run(config, *general, *data, "Global.epochs=1", "DataLoader.Train.sampler.batch_size=8")
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path)) == 2
    # Nothing is learnt in two steps: the loss is that of a guess among all classes.
    assert losses(tmp_path)[0] == pytest.approx(np.log(CLASSES), abs=1.5)
