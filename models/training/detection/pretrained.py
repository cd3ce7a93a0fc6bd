"""What a detector starts from: weights of ours, an exported detector, or PP-PicoDet-S's COCO weights by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from models.inference import ModelError, ModelFiles
from models.nets import PicoDetS

from ..checkpoint import Weights, load_weights, to_weights
from ..model import fit_weights
from ..pretrained import PretrainedError, apply_pretrained, load_pretrained
from .config import DetectionConfig
from .detector import build_detector

_BY_LAYER = "Conv_0.weight"  # the first name of weights by layer
_PUBLISHED_CLASSES = 80  # of COCO


def initial_detector(config: DetectionConfig, say: Callable[[str], Any]) -> tuple[Weights, list[str]]:
    """Make the weights that a training starts from.

    Args:
        config: the training.
        say: is told what was left random.

    Returns:
        All weights by name, and the names of those that were pretrained.

    Raises:
        ConfigError: ``Global.pretrained_model`` does not fit the network.
        PretrainedError: ``Arch.pretrained`` cannot be had or does not fit.
    """
    network = build_detector(config)
    names = [name for name, _ in network.named_parameters()]
    if config.pretrained_model is not None:
        fit_weights(network, load_weights(config.pretrained_model), str(config.pretrained_model))
        return to_weights(network), names
    if config.pretrained is False:
        return to_weights(network), []
    if isinstance(config.pretrained, str) and Path(config.pretrained).is_dir():
        weights = read_export(network, Path(config.pretrained))
    else:
        weights = load_pretrained(str(config.arch["name"]), config.pretrained)
    if _BY_LAYER in weights:
        weights = from_layers(network, weights, str(config.pretrained))
    left_random = apply_pretrained(network, weights)
    if left_random:
        say(f"no pretrained weights for {', '.join(left_random)}: random")
    return to_weights(network), [name for name in names if name not in left_random]


def read_export(network: nn.Layer, folder: Path) -> Weights:
    """Read the weights of a detector that ``models.export`` wrote, by name.

    Args:
        network: of the same architecture, made by :func:`build_detector`. An export has the parameters' unique names,
            which are the same for each network that it makes.
        folder: the export.

    Raises:
        PretrainedError: the folder holds no export that can be read.
    """
    try:
        files = ModelFiles.find(folder)
        # Graph and parameters are no pickles: nothing in them is run. The names get numbers that count loadings.
        with paddle.utils.unique_name.guard():
            layer = paddle.jit.load(str(files.graph.with_suffix("")))
        exported = {tensor.name: tensor for tensor in layer.parameters()}
    except (ModelError, RuntimeError, ValueError, OSError) as error:
        raise PretrainedError(f"{folder} cannot be read as an exported detector: {error}") from error
    unique = {name: f"{tensor.name}_0" for name, tensor in network.named_parameters()}
    return {name: exported[key].numpy() for name, key in unique.items() if key in exported}


def from_layers(network: PicoDetS, layers: Weights, source: str) -> Weights:
    """Name weights by layer (``Conv_0`` to ``Conv_132``) as our network does.

    The network makes its convolutions in the order of the graph. Where it has fewer classes, each class starts from
    the mean of all: what any object has in common.

    Args:
        network: whose names are wanted.
        layers: ``Conv_N.weight`` and ``Conv_N.bias``.
        source: where they come from, for messages.

    Raises:
        PretrainedError: a layer is missing.
    """
    named: Weights = {}
    convolutions = [name for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D)]
    for number, name in enumerate(convolutions):
        for kind in ("weight", "bias"):
            value = layers.get(f"Conv_{number}.{kind}")
            if value is None:
                raise PretrainedError(f"{source}: Conv_{number}.{kind} is missing")
            is_output = name.startswith("head.") and name.endswith(".output")
            named[f"{name}.{kind}"] = _with_classes(value, network.class_num) if is_output else value
    return named


def _with_classes(value: np.ndarray, count: int) -> np.ndarray:
    """Replace the rows of the published classes, which come first, by as many of their mean as there are to be."""
    classes, distances = value[:_PUBLISHED_CLASSES], value[_PUBLISHED_CLASSES:]
    if count == len(classes):
        return value
    return np.concatenate([np.repeat(classes.mean(axis=0, keepdims=True), count, axis=0), distances])
