"""PP-LCNet, AlexNet and VGG19, against the reference's figures, published sizes and the papers' tables."""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
import pytest
from paddle.nn import functional as F

from models import nets
from models.inference import Engine
from models.nets.pooling import mean_over_map

# Parameters in millions with 1,000 classes, as PaddleClas publishes them.
PUBLISHED_MILLIONS = {
    "PPLCNet_x0_25": 1.5,
    "PPLCNet_x0_35": 1.6,
    "PPLCNet_x0_5": 1.9,
    "PPLCNet_x0_75": 2.4,
    "PPLCNet_x1_0": 3.0,
    "PPLCNet_x1_5": 4.5,
    "PPLCNet_x2_0": 6.5,
    "PPLCNet_x2_5": 9.0,
}
# Channels after the stem and after each of the five stages: the paper's, scaled, to multiples of 8.
CHANNELS = {
    "PPLCNet_x0_25": [8, 8, 16, 32, 64, 128],
    "PPLCNet_x0_35": [8, 16, 24, 48, 88, 176],
    "PPLCNet_x0_5": [8, 16, 32, 64, 128, 256],
    "PPLCNet_x0_75": [16, 24, 48, 96, 192, 384],
    "PPLCNet_x1_0": [16, 32, 64, 128, 256, 512],
    "PPLCNet_x1_5": [24, 48, 96, 192, 384, 768],
    "PPLCNet_x2_0": [32, 64, 128, 256, 512, 1024],
    "PPLCNet_x2_5": [40, 80, 160, 320, 640, 1280],
}
IN_REFERENCE = ["PPLCNet_x2_5_Tanh", "PPLCNet_x1_0", "PPLCNet_x0_25"]


def pictures(count: int, side: int, seed: int = 8) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3, side, side)).astype(np.float32)


def draw(name: str, shape: list[int]) -> npt.NDArray[np.float32]:
    """A parameter as the reference's outputs were computed with it."""
    rng = np.random.default_rng(zlib.crc32(f"7:{name}".encode()))
    if len(shape) == 4:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) * 1.1).astype(np.float32)
    if len(shape) == 2:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    return (np.zeros if name.endswith(("_mean", "bias")) else np.ones)(shape, np.float32)


def fill(net: paddle.nn.Layer) -> None:
    net.set_state_dict({name: draw(name, list(tensor.shape)) for name, tensor in net.state_dict().items()})
    net.eval()


def run(net: paddle.nn.Layer, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with paddle.no_grad():
        return np.asarray(net(paddle.to_tensor(x)).numpy())


def export(net: paddle.nn.Layer, folder: Path | str) -> Engine:
    size = net.fixed_input_size or (None, None)
    spec = paddle.static.InputSpec([None, 3, *size], "float32")
    paddle.jit.save(net, f"{folder}/inference", input_spec=[spec])
    return Engine.load(folder, "cpu")


def count(net: paddle.nn.Layer) -> int:
    return sum(int(np.prod(parameter.shape)) for parameter in net.parameters())


def check_against_reference(shared: Path, name: str, net: paddle.nn.Layer) -> None:
    expected: dict[str, Any] = json.loads((shared / "parity" / "architectures.json").read_text("utf-8"))[name]
    assert {key: list(tensor.shape) for key, tensor in net.state_dict().items()} == expected["parameters"]
    assert count(net) == expected["trainable"]
    fill(net)
    outputs = np.load(shared / "parity" / "architectures_out.npz")[name]
    np.testing.assert_allclose(run(net, pictures(2, 224)), outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs).max())


@pytest.fixture(scope="module")
def alexnet() -> paddle.nn.Layer:
    return nets.build("AlexNet", class_num=48)


@pytest.mark.parametrize("name", IN_REFERENCE)
def test_pplcnet_has_the_names_shapes_and_outputs_of_the_reference(shared: Path, name: str) -> None:
    check_against_reference(shared, name, nets.build(name, class_num=512))


def test_alexnet_has_the_names_shapes_and_outputs_of_the_reference(shared: Path, alexnet: paddle.nn.Layer) -> None:
    check_against_reference(shared, "AlexNet", alexnet)


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_every_width_has_the_published_size(name: str) -> None:
    assert round(count(nets.build(name)) / 1e6, 1) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("name", CHANNELS)
def test_every_width_has_its_channels(name: str) -> None:
    with paddle.LazyGuard():
        plain = {key: list(value.shape) for key, value in nets.build(name).state_dict().items()}
        bounded = {
            key: list(value.shape) for key, value in nets.build(f"{name}_Tanh", class_num=40).state_dict().items()
        }
    ends = [
        "conv1.conv",
        *(f"blocks{stage}.{last}.pw_conv.conv" for stage, last in enumerate((0, 1, 1, 5, 1), start=2)),
    ]
    assert [plain[f"{end}.weight"][0] for end in ends] == CHANNELS[name]
    assert plain["last_conv.weight"] == [1280, CHANNELS[name][-1], 1, 1]
    assert (plain["fc.weight"], bounded["fc.origin_layer.weight"]) == ([1280, 1000], [1280, 40])
    assert [key.replace("fc.origin_layer", "fc") for key in bounded] == list(plain)


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_the_tanh_variant_is_the_tanh_of_the_plain_one(name: str) -> None:
    plain, bounded = nets.build(name, class_num=16), nets.build(f"{name}_Tanh", class_num=16)
    fill(plain)
    x = pictures(2, 64)
    # Features of about 2, for which tanh shows.
    plain.fc.weight.set_value(plain.fc.weight * (2.0 / float(np.abs(run(plain, x)).max())))
    bounded.set_state_dict({key: plain.state_dict()[key.replace(".origin_layer", "")] for key in bounded.state_dict()})
    bounded.eval()
    features = run(plain, x)
    np.testing.assert_allclose(run(bounded, x), np.tanh(features), rtol=1e-4, atol=1e-5)
    assert np.abs(features - np.tanh(features)).max() > 0.5
    # A picture gives the same alone and among others.
    np.testing.assert_allclose(run(plain, x[1:]), features[1:], rtol=1e-4, atol=1e-6 * np.abs(features).max())


@pytest.mark.parametrize("name", [f"{name}_Tanh" if number % 2 else name for number, name in enumerate(CHANNELS)])
def test_pplcnet_is_exported_for_any_batch_and_size(name: str, tmp_path: Path) -> None:
    net = nets.build(name, class_num=32)
    fill(net)
    engine = export(net, tmp_path)
    for batch, side in ((1, 32), (3, 96), (2, 128), (1, 33)):
        x = pictures(batch, side)
        expected = run(net, x)
        assert expected.shape == (batch, 32)
        np.testing.assert_allclose(engine.run([x])[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_alexnet_is_exported_for_any_batch_at_its_size(alexnet: paddle.nn.Layer) -> None:
    fill(alexnet)
    x = pictures(3, 224)
    expected = run(alexnet, x)
    with tempfile.TemporaryDirectory() as folder:  # 230 MB that pytest would keep
        engine = export(alexnet, folder)
        np.testing.assert_allclose(engine.run([x])[0], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(engine.run([x[:1]])[0], expected[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_vgg19_is_configuration_e_and_its_sigmoid_lies_in_the_unit_interval() -> None:
    net = nets.build("VGG19Sigmoid", class_num=16)
    layers = ["conv_block_1.conv1", "conv_block_1.conv2", "pool", "conv_block_2.conv1", "conv_block_2.conv2", "pool"]
    for block in (3, 4, 5):
        layers += [*(f"conv_block_{block}.conv{number}" for number in (1, 2, 3, 4)), "pool"]
    linear = ["fc1", "fc2", "fc3.origin_layer"]
    names = [f"{name}.weight" for name in layers if name != "pool"]
    names += [f"{name}.{part}" for name in linear for part in ("weight", "bias")]
    assert list(net.state_dict()) == names
    # The network of the paper has 143,667,240 with 1,000 classes, of them 5,504 biases of convolutions.
    assert count(net) == 143_667_240 - 5_504 - 4_097 * (1_000 - 16)
    net.eval()
    x = pictures(1, 224)
    with paddle.no_grad():
        weights, map_ = net.state_dict(), paddle.to_tensor(x)
        for name in layers:
            map_ = (
                F.max_pool2d(map_, 2)
                if name == "pool"
                else F.relu(F.conv2d(map_, weights[f"{name}.weight"], padding=1))
            )
        features = map_.reshape([1, 7 * 7 * 512])
        for name in linear:
            features = features @ weights[f"{name}.weight"] + weights[f"{name}.bias"]
            # What half of the inputs missed in training, evaluation takes away from all of them.
            features = features if name == linear[-1] else 0.5 * features.clip(min=0)
    expected = 1 / (1 + np.exp(-features.numpy()))
    np.testing.assert_allclose(run(net, x), expected, rtol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        np.testing.assert_allclose(export(net, folder).run([x])[0], expected, rtol=1e-4)


def test_vgg19_without_sigmoid_calls_its_last_layer_as_the_published_weights_do() -> None:
    with paddle.LazyGuard():
        plain, hashing = nets.build("VGG19").state_dict(), nets.build("VGG19Sigmoid").state_dict()
    assert list(plain) == [key.replace("fc3.origin_layer", "fc3") for key in hashing]
    assert [list(plain[f"fc3.{part}"].shape) for part in ("weight", "bias")] == [[4096, 1000], [1000]]


@pytest.mark.parametrize("name", ["VGG19", "VGG19Sigmoid"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (223, 224), (224, 256)])
def test_vgg19_refuses_what_its_linear_layers_do_not_fit(name: str, height: int, width: int) -> None:
    with paddle.LazyGuard():  # no parameter is touched before the size
        net = nets.build(name)
    with pytest.raises(ValueError, match=rf"{name} takes pictures of 224x224 .* not of {height}x{width}"):
        net(paddle.zeros([1, 3, height, width]))


def test_alexnet_takes_what_leaves_its_last_map_six_by_six(alexnet: paddle.nn.Layer) -> None:
    assert run(alexnet, pictures(1, 223)).shape == run(alexnet, pictures(1, 254)).shape == (1, 48)
    for side in (32, 222, 255):
        with pytest.raises(ValueError, match=rf"AlexNet takes pictures of 224x224 .* not of {side}x{side}"):
            run(alexnet, pictures(1, side))


def test_alexnet_says_that_it_cannot_be_exported_for_any_size(alexnet: paddle.nn.Layer, tmp_path: Path) -> None:
    spec = paddle.static.InputSpec([None, 3, None, None], "float32")
    with pytest.raises(ValueError, match=r"AlexNet takes pictures of 224x224 .* not of any size"):
        paddle.jit.save(alexnet, str(tmp_path / "inference"), input_spec=[spec])


def test_training_drops_inputs_and_evaluation_does_not(alexnet: paddle.nn.Layer) -> None:
    x = pictures(1, 224)
    paddle.seed(3)
    try:
        alexnet.train()
        assert not np.array_equal(run(alexnet, x), run(alexnet, x))
    finally:
        alexnet.eval()
    np.testing.assert_array_equal(run(alexnet, x), run(alexnet, x))


@pytest.mark.filterwarnings("ignore:When training, we now always track:UserWarning")  # Paddle, of every batch norm
def test_pplcnet_trains_all_its_parameters() -> None:
    paddle.seed(0)
    net = nets.build("PPLCNet_x0_25_Tanh", class_num=8, dropout_prob=0.0)
    x = paddle.to_tensor(pictures(4, 64))
    (net(x) ** 2).sum().backward()
    trained = [(name, one) for name, one in net.named_parameters() if not one.stop_gradient]
    still = [name for name, one in trained if one.grad is None or not np.abs(one.grad.numpy()).sum()]
    assert still == []
    assert len(trained) == 3 * 27 + 2 * 4 + 1 + 2  # 27 with batch norm, 4 that excite, the last one, and fc


def test_pooling_is_the_mean_and_has_its_slope_in_training_too() -> None:
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 5, 3, 7)).astype(np.float32), stop_gradient=False)
    expected = x.numpy().mean(axis=(2, 3), keepdims=True)
    for training in (True, False):
        np.testing.assert_allclose(mean_over_map(x, training).numpy(), expected, atol=1e-6)
    scale = np.arange(10, dtype=np.float32).reshape(2, 5, 1, 1)
    (mean_over_map(x, True) * paddle.to_tensor(scale)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(scale / 21, x.shape), rtol=1e-5)


def test_weight_decay_spares_batch_norm() -> None:
    net = nets.build("PPLCNet_x0_25", class_num=8)
    spared = {name for name, one in net.named_parameters() if one.regularizer is not None}
    norms = {name for name, one in net.named_parameters() if ".bn." in name and not one.stop_gradient}
    assert spared == norms != set()
    assert {one.regularizer._coeff for name, one in net.named_parameters() if name in norms} == {0.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "AlexNet", "class_nun": 48}, r"AlexNet has no setting class_nun; it takes class_num$"),
        ({"name": "PPLCNet_x2_5_Tanh", "scale": 1.0}, r"PPLCNet_x2_5_Tanh has no setting scale; it takes class_num, "),
        ({"name": "Tanh", "class_num": 48}, r"Tanh has no setting class_num; it takes no settings"),
        ({"name": "FC", "embedding_size": 48}, r"FC needs class_num"),
        ({"name": "PPLCNet_x3_0"}, r"no architecture is called 'PPLCNet_x3_0'; there are AlexNet, .*PPLCNet_x2_5_Tanh"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nets.build(**settings)
