"""Which configuration trains what."""

from __future__ import annotations

from .config import Config, TrainingConfig
from .detection.config import DetectionConfig
from .detection.training import Detection
from .devices import Devices
from .hashing import Hashing
from .task import Task


def open_task(config: TrainingConfig, devices: Devices) -> Task:
    """Open what a configuration trains.

    Raises:
        ConfigError, DatasetError: it cannot be used.
    """
    if isinstance(config, DetectionConfig):
        return Detection.open(config, devices)
    if isinstance(config, Config):
        return Hashing.open(config, devices)
    raise TypeError(f"nothing is trained by a {type(config).__name__}")
