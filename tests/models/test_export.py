"""An export gives the codes of the training graph: 200 real photos through both."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paddle
import pytest
import yaml

from models.export import export
from models.inference import Hasher, pack_bits
from models.training.config import ConfigError
from models.training.config_file import load_config
from models.training.data.datasets import load_datasets
from models.training.data.loader import batches
from models.training.data.transforms import Transforms
from models.training.model import build_model, fit_weights, initial_weights

PHOTOS = 200
LARGEST_SHARE = 1e-4


@pytest.fixture(scope="module")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 14th photo of Caltech-101, and their list."""
    folder = tmp_path_factory.mktemp("photos")
    with tarfile.open(shared / "data" / "caltech.tar") as tar:
        members = [member for member in tar if member.isfile() and member.name.endswith(".jpg")]
        chosen = members[:: len(members) // PHOTOS][:PHOTOS]
        for member in chosen:
            tar.extract(member, folder, filter="data")
    lines = [f"{member.name}\t{member.name.split('/')[0]}" for member in chosen]
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    return folder


Write = Callable[[dict[str, object], str, list[dict[str, object]]], Path]


@pytest.fixture
def write_config(photos: Path, tmp_path: Path) -> Write:
    """A configuration with this backbone, binarisation and loss, at 96 pixels."""

    def write(backbone: dict[str, object], binarize: str, loss: list[dict[str, object]]) -> Path:
        ops: list[dict[str, object]] = [
            {"ResizeImage": {"size": 96}},
            {"NormalizeImage": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
        ]
        data = {"image_root": str(photos), "cls_label_path": str(photos / "list.txt"), "transform_ops": ops}
        content = {
            "Global": {"name": "photos", "output_dir": str(tmp_path), "epochs": 1, "feature_binarize": binarize},
            "Arch": {"name": "RecModel", "Backbone": backbone},
            "Loss": {"Train": loss},
            "Optimizer": {"name": "SGD", "lr": {"name": "Constant", "learning_rate": 0.1}},
            "DataLoader": {"Train": {"dataset": data, "sampler": {"batch_size": 50}}},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content), "utf-8")
        return path

    return write


def codes_of_both(config_path: Path, folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Codes from the training graph and from its export: uint8 (200, bits // 8) each."""
    config = load_config(config_path)
    dataset = load_datasets(config.train.datasets)
    weights, _ = initial_weights(config, 1, lambda _: None)
    model = build_model(config, 1)
    fit_weights(model, weights, "the weights")
    model.eval()
    order = np.arange(len(dataset)).reshape(-1, 50)
    transforms = Transforms.from_ops(config.train.transform_ops)
    with paddle.no_grad():
        features = [model(paddle.to_tensor(batch.views)).numpy() for batch in batches(dataset, transforms, order, None)]
    hasher = Hasher.load(export(config, weights, folder), "cpu")
    images = [dataset.read(index) for index in range(len(dataset))]
    # One by one and together: the batch is dynamic.
    served = np.concatenate([hasher.hash(images[:1]), hasher.hash(images[1:])])
    return pack_bits(np.concatenate(features), config.binarize), served


def test_mobilenet_from_imagenet_weights(write_config: Write, shared: Path, tmp_path: Path) -> None:
    weights = shared / "data" / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz"
    backbone = {"name": "MobileNetV1", "class_num": 512, "pretrained": str(weights)}
    path = write_config(backbone, "sign", [{"LCDSHLoss": {"weight": 1.0, "_lambda": 3.0, "n_class": 100}}])
    trained, served = codes_of_both(path, tmp_path / "model")
    assert trained.shape == (PHOTOS, 64)
    assert len(np.unique(trained, axis=0)) > PHOTOS // 2
    assert np.unpackbits(trained ^ served).mean() <= LARGEST_SHARE


def test_pplcnet_with_tanh(write_config: Write, tmp_path: Path) -> None:
    backbone = {"name": "PPLCNet_x0_5_Tanh", "class_num": 512, "pretrained": False}
    path = write_config(backbone, "sign", [{"LCDSHLoss": {"weight": 1.0, "_lambda": 3.0, "n_class": 100}}])
    trained, served = codes_of_both(path, tmp_path / "model")
    assert np.unpackbits(trained ^ served).mean() <= LARGEST_SHARE


def test_the_folder_says_how_to_binarize(write_config: Write, tmp_path: Path) -> None:
    backbone = {"name": "PPLCNet_x0_25", "class_num": 64, "pretrained": False}
    path = write_config(backbone, "round", [{"DCHLoss": {"gamma": 20.0, "_lambda": 0.1, "n_class": 100}}])
    trained, served = codes_of_both(path, tmp_path / "model")
    assert np.unpackbits(trained ^ served).mean() <= LARGEST_SHARE
    written = (tmp_path / "model" / "inference.yml").read_text("utf-8")
    assert yaml.safe_load(written)["binarize"] == "round"


def test_what_lies_beside_an_export_stays(write_config: Write, tmp_path: Path) -> None:
    backbone = {"name": "PPLCNet_x0_25", "class_num": 64, "pretrained": False}
    config = load_config(write_config(backbone, "sign", [{"LCDSHLoss": {"_lambda": 3.0, "n_class": 100}}]))
    weights, _ = initial_weights(config, 1, lambda _: None)
    folder = tmp_path / "model"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "curves.txt").write_text("a curve", "utf-8")
    (folder / "inference.yml").write_text("of an older one", "utf-8")
    export(config, weights, folder)
    assert Hasher.load(folder, "cpu").bits == 64
    assert (folder / "figures" / "curves.txt").read_text("utf-8") == "a curve"
    file = tmp_path / "notes.txt"
    file.write_text("mine", "utf-8")
    with pytest.raises(NotADirectoryError, match=r"notes.txt is a file"):
        export(config, weights, file)
    assert file.read_text("utf-8") == "mine"


def test_weights_of_another_network_are_refused_by_their_file(write_config: Write, tmp_path: Path) -> None:
    backbone = {"name": "PPLCNet_x0_25", "class_num": 64, "pretrained": False}
    path = write_config(backbone, "sign", [{"LCDSHLoss": {"_lambda": 3.0, "n_class": 100}}])
    weights, _ = initial_weights(load_config(path), 1, lambda _: None)
    other = load_config(path, ["Arch.Backbone.class_num=48"])
    with pytest.raises(ConfigError, match=r"best.pdparams: backbone.* has the shape .*of another architecture"):
        export(other, weights, tmp_path / "model", source="best.pdparams")
    assert not (tmp_path / "model").exists()
