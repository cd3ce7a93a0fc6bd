"""PicoDet-S against the outputs of the network that the COCO weights were published for."""

from pathlib import Path

import numpy as np
import paddle
import pytest

from models import nets
from models.nets.picodet import STRIDES, cell_centres, decode_boxes
from models.training.detection.pretrained import from_layers
from models.training.pretrained import PretrainedError, load_pretrained


def test_equals_the_published_network(shared: Path) -> None:
    folder = shared / "data" / "pretrained"
    net = nets.build("PicoDetS", class_num=80)
    weights = from_layers(net, load_pretrained("PicoDetS", str(folder / "picodet_s_416_coco.npz")), "coco")
    assert net.set_state_dict(weights) == ([], [])
    net.eval()
    picture = np.random.default_rng(8).standard_normal((3, 416, 416)).astype(np.float32)
    with paddle.no_grad():
        logits, distances = net(paddle.to_tensor(picture[None]))
        scores = paddle.nn.functional.sigmoid(logits)[0].numpy()
    first = 0
    with np.load(folder / "picodet_s_416_reference.npz") as reference:
        for stride, every in zip(STRIDES, (13, 13, 13, 1), strict=True):
            cells = (-(-416 // stride)) ** 2
            for name, found in (("scores", scores), ("boxes", distances[0].numpy())):
                expected = reference[f"{name}_{stride}"]
                difference = np.abs(found[first : first + cells : every] - expected).max()
                assert difference <= 1e-4 * np.abs(expected).max()
            first += cells
    assert first == len(scores)


def test_one_class_starts_from_the_mean_of_all(shared: Path) -> None:
    layers = load_pretrained("PicoDetS", str(shared / "data" / "pretrained" / "picodet_s_416_coco.npz"))
    named = from_layers(nets.build("PicoDetS"), layers, "coco")
    published, own = layers["Conv_117.weight"], named["head.branches.0.output.weight"]
    np.testing.assert_allclose(own[0], published[:80].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(own[1:], published[80:])
    del layers["Conv_132.bias"]
    with pytest.raises(PretrainedError, match=r"coco: Conv_132\.bias is missing"):
        from_layers(nets.build("PicoDetS"), layers, "coco")


@pytest.mark.parametrize("first_block", [1, 2])
def test_trunk_and_upper_parts_make_the_whole(first_block: int) -> None:
    paddle.seed(0)
    whole, upper = nets.build("PicoDetS"), nets.build("PicoDetS", first_block=first_block)
    upper.set_state_dict({name: value for name, value in whole.state_dict().items() if name in upper.state_dict()})
    whole.eval()
    upper.eval()
    x = paddle.randn([2, 3, 128, 64])
    with paddle.no_grad():
        for found, expected in zip(upper(whole.trunk(x, first_block)), whole(x), strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not any(name.startswith("esnet") for name in upper.state_dict())


def test_training_and_evaluation_compute_the_same() -> None:
    """There is no batch norm; only means over maps are computed in another way."""
    net = nets.build("PicoDetS")
    x = paddle.randn([1, 3, 64, 64])
    with paddle.no_grad():
        net.train()
        trained = net(x)
        net.eval()
        for found, expected in zip(net(x), trained, strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_untrained_scores_start_low() -> None:
    logits, _ = nets.build("PicoDetS", score_bias=-4.6)(paddle.zeros([1, 3, 64, 64]))
    assert paddle.nn.functional.sigmoid(logits).numpy().max() < 0.1


def test_cells_lie_in_the_middle_of_their_squares() -> None:
    centres, strides = (tensor.numpy() for tensor in cell_centres(128, 192))
    expected = [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in STRIDES
        for row in range(128 // stride)
        for column in range(192 // stride)
    ]
    np.testing.assert_array_equal(np.column_stack([centres, strides]), expected)
    logits, distances = nets.build("PicoDetS")(paddle.zeros([1, 3, 128, 192]))
    assert logits.shape == [1, len(expected), 1]
    assert distances.shape == [1, len(expected), 32]


def test_boxes_are_expected_distances_around_the_cells() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((1, 3, 4 * 5)).astype(np.float32)
    centres, strides = np.float32([[4, 12], [40, 24], [96, 32]]), np.float32([[8], [16], [64]])
    found = decode_boxes(*(paddle.to_tensor(each) for each in (logits, centres, strides))).numpy()
    for cell in range(3):
        for side in range(4):
            weights = np.exp(logits[0, cell, 5 * side : 5 * side + 5].astype(np.float64))
            distance = sum(number * weight for number, weight in enumerate(weights)) / weights.sum() * strides[cell, 0]
            centre = centres[cell, side % 2]
            assert found[0, cell, side] == pytest.approx(centre - distance if side < 2 else centre + distance, rel=1e-4)


@pytest.mark.parametrize("settings", [{"class_num": 0}, {"bins": 1}, {"first_block": 3}], ids=str)
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"two bins at least|first_block"):
        nets.build("PicoDetS", **settings)
