"""Architectures, against weights and embeddings that other programs computed."""

from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from models import nets
from models.inference import Preprocessing

IMAGENET = Preprocessing(size=(224, 224), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def pretrained(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "data" / "pretrained" / "mobilenet_v1_1.0_224_imagenet.npz") as archive:
        return {name: archive[name] for name in archive.files}


def test_mobilenet_reproduces_the_imagenet_embedding(shared: Path, pretrained: dict[str, np.ndarray]) -> None:
    net = nets.build("MobileNetV1")
    assert net.set_state_dict(pretrained) == ([], [])
    teacher = np.load(shared / "data" / "teacher" / "drink.npz")
    rows = np.arange(0, len(teacher["path"]), 200)
    photos = [cv2.imread(str(shared / "data" / "drink" / "gallery" / teacher["path"][row])) for row in rows]
    views = np.stack([IMAGENET(np.ascontiguousarray(photo[:, :, ::-1])) for photo in photos])
    with paddle.no_grad():
        embedding = net(paddle.to_tensor(views)).numpy()
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    assert (embedding * teacher["features"][rows]).sum(axis=1).min() > 0.98


def test_trunk_and_upper_blocks_make_the_whole() -> None:
    paddle.seed(0)
    whole = nets.build("MobileNetV1", class_num=16, pooled_blocks=(11, 13))
    upper = nets.build("MobileNetV1", class_num=16, pooled_blocks=(11, 13), first_block=12)
    upper.set_state_dict({name: value for name, value in whole.state_dict().items() if name in upper.state_dict()})
    whole.eval()
    upper.eval()
    x = paddle.randn([2, 3, 64, 64])
    with paddle.no_grad():
        np.testing.assert_allclose(upper(whole.trunk(x, 12)).numpy(), whole(x).numpy(), rtol=1e-4, atol=1e-5)
    assert "conv11_pw.weight" not in upper.state_dict()


def test_stride_two_pads_below_and_right_only() -> None:
    net = nets.build("MobileNetV1")
    with paddle.no_grad():
        for parameter in net.conv0.parameters():
            parameter.set_value(paddle.zeros_like(parameter))
        net.conv0.weight[0, 0, 0, 0] = 1.0  # picks the upper left pixel of its window
        x = paddle.arange(36, dtype="float32").reshape([1, 1, 6, 6]).tile([1, 3, 1, 1]) / 10
        picked = net.conv0(x)[0, 0].numpy()
    np.testing.assert_allclose(picked, np.arange(36).reshape(6, 6)[::2, ::2] / 10, rtol=1e-6)


def test_cosine_margin_lowers_only_the_own_class() -> None:
    head = nets.build("CosMargin", embedding_size=8, class_num=3, margin=0.25, scale=10.0)
    features = paddle.randn([4, 8])
    label = paddle.to_tensor([0, 2, -1, 1])
    difference = (head(features) - head(features, label)).numpy()
    expected = np.zeros((4, 3))
    expected[0, 0] = expected[1, 2] = expected[3, 1] = 2.5
    np.testing.assert_allclose(difference, expected, atol=1e-5)
    weight = head.weight.numpy()
    cosine = features.numpy() @ weight
    cosine /= np.linalg.norm(features.numpy(), axis=1)[:, None] * np.linalg.norm(weight, axis=0)
    np.testing.assert_allclose(head(features).numpy(), 10 * cosine, atol=1e-4)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="MobileNetV1"):
        nets.build("MobileNetV9")
