"""What a training loop needs to know of what it trains: hash models and detectors share the loop, not this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import paddle

from .checkpoint import Weights
from .config import Stage, TrainingConfig

Trunk = Callable[[Any], Any]
"""A batch's views to what the layers above a frozen trunk take, on Paddle Inference."""


class Task(Protocol):
    """A network with the pictures that it learns from, the losses, and how well it does.

    Attributes:
        config: the training.
        best_figure: the one of :meth:`evaluate` by which the best weights are told.
    """

    config: TrainingConfig
    best_figure: ClassVar[str]

    def describe(self) -> str:
        """Say how much there is to learn from."""

    def build(self, first_block: int = 0) -> paddle.nn.Layer:
        """Make the network with random weights, without the blocks below ``first_block``.

        Raises:
            ConfigError: it does not take a setting.
        """

    def initial_weights(self, say: Callable[[str], Any]) -> tuple[Weights, list[str]]:
        """Make the weights that the training starts from; also name those that were pretrained.

        Raises:
            ConfigError, PretrainedError: they cannot be had or do not fit.
        """

    def epoch_steps(self, stage: Stage) -> int:
        """Count the steps of an epoch, equally many on each device."""

    def epoch(self, stage: Stage, seed: tuple[int, ...], start: int) -> Iterator[Any]:
        """Draw the batches of this device's share of an epoch from step ``start`` on; each has a length.

        Raises:
            DatasetError: a picture cannot be used.
        """

    def freeze_trunk(self, weights: Weights, first_block: int) -> Trunk:
        """Put the blocks below ``first_block`` on Paddle Inference."""

    def forward(self, network: Any, batch: Any, trunk: Trunk | None) -> Any:
        """Run the network for a batch.

        Raises:
            ConfigError: it does not take pictures of this size.
        """

    def losses(self, output: Any, batch: Any) -> tuple[dict[str, paddle.Tensor], dict[str, float]]:
        """Evaluate the weighted losses of what :meth:`forward` gave, and other figures for the log.

        Raises:
            ConfigError: a loss does not take the output.
        """

    @property
    def can_evaluate(self) -> bool:
        """Whether there is something to evaluate on."""

    def evaluate(self, weights: Weights, tick: Callable[[], Any]) -> dict[str, float]:
        """Measure weights, and call ``tick`` every few seconds meanwhile.

        Raises:
            FloatingPointError: what the network gives is not finite.
        """
