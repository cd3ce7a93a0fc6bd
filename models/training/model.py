"""The network of a configuration: built, started from weights, and frozen for fast inference."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle

from models import nets
from models.inference import Engine

from .checkpoint import Weights, load_weights, to_weights
from .config import Config, ConfigError
from .devices import cpu_threads
from .pretrained import apply_pretrained, load_pretrained

Encode = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def build_model(config: Config, class_num: int, first_block: int = 0) -> nets.RecModel:
    """Make the network of a configuration, with random weights.

    Args:
        config: the training.
        class_num: number of classes for a head that counts them itself (``auto``).
        first_block: leave out the blocks below it, see :class:`models.nets.MobileNetV1`.

    Raises:
        ConfigError: the architecture is unknown or does not take a setting.
    """
    backbone, neck, head = (dict(part or {}) for part in (config.arch.backbone, config.arch.neck, config.arch.head))
    if head.get("class_num") == "auto":
        head["class_num"] = class_num
    if first_block:
        backbone["first_block"] = first_block
    # Optimizer states are saved under the parameters' unique names: these must not depend on what was built before.
    with paddle.utils.unique_name.guard():
        try:
            return nets.RecModel(
                nets.build(**backbone), nets.build(**neck) if neck else None, nets.build(**head) if head else None
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"Arch: {error}") from None


def initial_weights(config: Config, class_num: int, say: Callable[[str], Any]) -> tuple[Weights, list[str]]:
    """Make the weights that a training starts from.

    Args:
        config: the training.
        class_num: as for :func:`build_model`.
        say: is told what was left random.

    Returns:
        All weights by name, and the names of those that were pretrained.

    Raises:
        ConfigError: ``Global.pretrained_model`` does not fit the network.
        PretrainedError: ``Arch.Backbone.pretrained`` cannot be had or does not fit.
    """
    model = build_model(config, class_num)
    if config.pretrained_model is not None:
        fit_weights(model, load_weights(config.pretrained_model), str(config.pretrained_model))
        return to_weights(model), list(dict(model.named_parameters()))
    if config.arch.pretrained is False:
        return to_weights(model), []
    weights = load_pretrained(config.arch.backbone["name"], config.arch.pretrained, config.arch.use_ssld)
    left_random = apply_pretrained(model.backbone, weights)
    if left_random:
        say(f"no pretrained weights for {', '.join(left_random)}: random")
    pretrained = [f"backbone.{name}" for name, _ in model.backbone.named_parameters() if name not in left_random]
    return to_weights(model), pretrained


def fit_weights(model: paddle.nn.Layer, weights: Weights, source: str) -> None:
    """Set all parameters and buffers of a network.

    Args:
        model: the network.
        weights: arrays by name; those the network does not have are passed over.
        source: where they come from, for the message.

    Raises:
        ConfigError: one is missing or has another shape: the weights are of another architecture.
    """
    for name, tensor in model.state_dict().items():
        if name not in weights:
            raise ConfigError(f"{source}: {name} is missing: of another architecture than Arch describes")
        if tuple(weights[name].shape) != tuple(tensor.shape):
            raise ConfigError(
                f"{source}: {name} has the shape {list(weights[name].shape)}, not {list(tensor.shape)}: "
                "of another architecture than Arch describes"
            )
    model.set_state_dict({name: weights[name] for name in model.state_dict()})


class Trunk(paddle.nn.Layer):
    """The blocks of a network below ``first_block``: pictures to what the blocks above take."""

    def __init__(self, network: nets.MobileNetV1 | nets.PicoDetS, first_block: int) -> None:
        super().__init__()
        self.network = network
        self.first_block = first_block

    def forward(self, x: paddle.Tensor) -> paddle.Tensor | list[paddle.Tensor]:
        """Pictures float32 (B, 3, H, W) to one map, or several."""
        return self.network.trunk(x, self.first_block)


def frozen_trunk(config: Config, weights: Weights, first_block: int, size: tuple[int, int]) -> Encode:
    """Put the blocks below ``first_block`` on Paddle Inference: pictures (B, 3, H, W) to their map."""
    backbone = build_model(config, class_num=1).backbone
    fit_weights(backbone, {name.removeprefix("backbone."): value for name, value in weights.items()}, "the stage")
    run = freeze(Trunk(backbone, first_block), (3, *size))
    return lambda views: run(views)[0]


def frozen_features(config: Config, weights: Weights, size: tuple[int, int], source: str = "the weights") -> Encode:
    """Put backbone and neck on Paddle Inference: pictures float32 (B, 3, height, width) to features (B, bits).

    Args:
        config: the training.
        weights: of the whole network.
        size: (height, width) of the pictures.
        source: where the weights come from, for messages.

    Raises:
        ConfigError: the weights are of another architecture, or it does not take pictures of this size.
    """
    model = build_code_model(config, weights, source)
    try:
        run = freeze(model, (3, *size))
    except ValueError as error:
        raise ConfigError(f"pictures of {size[0]} x {size[1]} pixels: {error}") from error
    return lambda views: run(views)[0]


def build_code_model(config: Config, weights: Weights, source: str = "the weights") -> nets.RecModel:
    """Make what codes are made with: the network without its head, with weights, in evaluation mode.

    Raises:
        ConfigError: the weights are of another architecture.
    """
    model = build_model(config, class_num=1)
    model.head = None
    fit_weights(model, weights, source)
    model.eval()
    return model


def freeze(
    layer: paddle.nn.Layer, shape: tuple[int, int, int]
) -> Callable[[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """Export a layer that takes one float32 (B, *shape) tensor and run it on Paddle Inference, for all its outputs.

    On a CPU this is about ten times as fast as the layer itself, which runs without oneDNN.
    """
    layer.eval()
    with tempfile.TemporaryDirectory() as folder:
        paddle.jit.save(layer, f"{folder}/inference", input_spec=[paddle.static.InputSpec([None, *shape], "float32")])
        kind, _, number = paddle.get_device().partition(":")  # of several processes each has its own
        # As many threads as the training has: loading sets the number for the whole process.
        engine = Engine.load(
            folder, "gpu" if kind == "gpu" else "cpu", gpu_number=int(number or 0), threads=cpu_threads()
        )
    return lambda inputs: engine.run([inputs])
