"""``Loss.Train`` of a binary feature model: its losses, made and evaluated."""

from __future__ import annotations

import paddle

from models import losses

from .config import ConfigError, LossTerm
from .data.loader import Batch


def build_loss(term: LossTerm) -> paddle.nn.Layer:
    """Make one loss of ``Loss.Train``.

    Raises:
        ConfigError: it is unknown or does not take its settings.
    """
    if term.name not in losses.LOSSES:
        raise ConfigError(f"Loss.Train: no loss is called {term.name!r}; there are {', '.join(losses.LOSSES)}")
    try:
        return losses.LOSSES[term.name](**term.settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Loss.Train: {term.name}: {error}") from None


def evaluate_loss(loss: paddle.nn.Layer, output: dict[str, paddle.Tensor], batch: Batch) -> paddle.Tensor:
    """Apply a loss to the network's output for a batch, in float32 whatever the network computed in.

    Raises:
        ConfigError: it does not take them, such as a label that is out of its range.
    """
    output = {name: tensor.astype("float32") for name, tensor in output.items()}
    try:
        if isinstance(loss, losses.SimilarityPreservingLoss):
            return loss(output, paddle.to_tensor(batch.teacher), paddle.to_tensor(batch.teacher_group))
        return loss(output, paddle.to_tensor(batch.labels))
    except ValueError as error:
        raise ConfigError(f"Loss.Train: {type(loss).__name__}: {error}") from error
