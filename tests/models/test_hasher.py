"""The hasher: the bundled model, PP-ShiTu's official graphs, and folders that are not what they seem."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import yaml

from models.inference import (
    RECOGNITION,
    STARTER_HASHER,
    DeviceUnavailable,
    Hasher,
    ModelInvalid,
    ModelNotFound,
    Preprocessing,
    pack_bits,
)


@pytest.fixture(scope="module")
def starter() -> Hasher:
    return Hasher.load(STARTER_HASHER, "cpu")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    data = skimage.data
    return [data.chelsea(), data.coffee(), data.astronaut(), np.dstack([data.camera()] * 3), data.rocket()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER_HASHER, tmp_path / "hasher"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "inference.yml"
    content = yaml.safe_load(path.read_text("utf-8")) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}), "utf-8")


def test_codes_do_not_depend_on_the_batch(starter: Hasher, photos: list[np.ndarray]) -> None:
    together = starter.hash(photos)
    alone = np.concatenate([starter.hash([photo]) for photo in photos])
    assert together.shape == (len(photos), starter.bits // 8)
    assert together.dtype == np.uint8
    # Another batch size may take another kernel; a feature within rounding of 0 may then change sides.
    assert np.bitwise_count(together ^ alone).sum() <= 2
    assert np.array_equal(starter.hash(photos * 8)[-len(photos) :], starter.hash(photos * 8)[: len(photos)])


def test_codes_are_the_signs_of_the_features(starter: Hasher, photos: list[np.ndarray]) -> None:
    features = starter.features(photos)
    assert features.dtype == np.float32
    assert np.abs(features).max() <= 1.0
    assert np.array_equal(starter.hash(photos), pack_bits(features))


def test_no_pictures_give_no_codes(starter: Hasher) -> None:
    assert starter.hash([]).shape == (0, starter.bits // 8)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 4000, 3), (4000, 2, 3)])
def test_takes_any_picture(starter: Hasher, shape: tuple[int, int, int]) -> None:
    assert starter.hash([np.zeros(shape, np.uint8)]).shape == (1, starter.bits // 8)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_refuses_what_is_no_rgb_picture(starter: Hasher, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="RGB uint8"):
        starter.hash([bad])


def test_clones_agree_across_threads(starter: Hasher, photos: list[np.ndarray]) -> None:
    expected = starter.hash(photos)
    clones = [starter.clone() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for codes in pool.map(lambda clone: [clone.hash(photos) for _ in range(3)], clones):
            assert all(np.array_equal(code, expected) for code in codes)


def test_says_what_it_runs_on(starter: Hasher) -> None:
    said = starter.describe()
    assert "cpu" in said
    assert "oneDNN on" in said
    assert f"{starter.bits} bits" in said


def test_with_and_without_onednn_agree(photos: list[np.ndarray], starter: Hasher) -> None:
    plain = Hasher.load(STARTER_HASHER, "cpu", threads=1, onednn=False)
    assert plain.fingerprint == starter.fingerprint
    np.testing.assert_allclose(plain.features(photos), starter.features(photos), atol=2e-3)


@pytest.mark.parametrize("part", ["PPLCNet_x2_5_lite", "PPLCNetV2_base"])
@pytest.mark.parametrize("onednn", [True, False])
def test_official_graphs_run(
    official: Callable[[str], Path], photos: list[np.ndarray], part: str, onednn: bool
) -> None:
    hasher = Hasher.load(official(part), "cpu", onednn=onednn)
    assert hasher.bits == 512
    assert hasher.recommended_radius is None
    features = hasher.features(photos)
    assert features.shape == (len(photos), 512)
    assert np.isfinite(features).all()
    assert len(np.unique(hasher.hash(photos), axis=0)) > 1


def test_files_may_be_called_model(official: Callable[[str], Path], tmp_path: Path, photos: list[np.ndarray]) -> None:
    source = official("PPLCNet_x2_5_lite")
    for path in source.iterdir():
        shutil.copy(path, tmp_path / f"model{path.suffix}")
    assert np.array_equal(Hasher.load(tmp_path, "cpu").hash(photos), Hasher.load(source, "cpu").hash(photos))


def test_fingerprint_follows_everything_that_changes_codes(copy: Path, starter: Hasher) -> None:
    assert Hasher.load(copy, "cpu").fingerprint == starter.fingerprint
    fingerprints = {
        starter.fingerprint,
        Hasher.load(copy, "cpu", binarize="round").fingerprint,
        Hasher.load(copy, "cpu", preprocessing=RECOGNITION).fingerprint,
        Hasher.load(copy, "cpu", preprocessing=Preprocessing(size=(224, 224), mean=(0.5, 0.5, 0.4))).fingerprint,
    }
    assert len(fingerprints) == 4


def test_changed_weights_are_noticed(copy: Path) -> None:
    params = copy / "inference.pdiparams"
    content = bytearray(params.read_bytes())
    content[len(content) // 2] ^= 1
    params.write_bytes(content)
    with pytest.raises(ModelInvalid, match="fingerprint"):
        Hasher.load(copy, "cpu")


def test_truncated_weights_are_refused(copy: Path) -> None:
    params = copy / "inference.pdiparams"
    params.write_bytes(params.read_bytes()[:1000])
    with pytest.raises(ModelInvalid):
        Hasher.load(copy, "cpu")


@pytest.mark.parametrize("name", ["inference.json", "inference.pdiparams"])
def test_missing_files_are_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        Hasher.load(copy, "cpu")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        Hasher.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 64}, "64 bits"),
        ({"kind": "detector"}, "hasher was asked for"),
        ({"binarize": "median"}, "sign or round"),
        ({"colour": "red"}, "colour"),
        ({"transform_ops": None}, "transform_ops"),
        ({"transform_ops": [{"ResizeImage": {"size": 224, "colour": 1}}]}, "colour"),
        ({"hamming_radius": -1}, "hamming_radius"),
        ({"hamming_radius": 100_000}, "hamming_radius"),
    ],
)
def test_manifest_is_checked(copy: Path, changes: dict[str, object], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(ModelInvalid, match=message):
        Hasher.load(copy, "cpu")


def test_manifest_that_is_no_yaml(copy: Path) -> None:
    (copy / "inference.yml").write_text("a: [", "utf-8")
    with pytest.raises(ModelInvalid, match="not YAML"):
        Hasher.load(copy, "cpu")


def test_a_detector_is_refused(official: Callable[[str], Path]) -> None:
    with pytest.raises((ModelInvalid, ValueError)):
        Hasher.load(official("mainbody"), "cpu")


def test_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="auto, cpu or gpu"):
        Hasher.load(STARTER_HASHER, "tpu")  # type: ignore[arg-type]


def test_gpu_without_one_says_what_to_do() -> None:
    import paddle

    if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(DeviceUnavailable, match=r"CPU build|no CUDA device"):
        Hasher.load(STARTER_HASHER, "gpu")
