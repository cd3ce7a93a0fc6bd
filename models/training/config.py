"""What a training is: one frozen object that the loop, the evaluation and the export read.

:func:`models.training.config_file.load_config` makes it from a YAML file in PP-ShiTu's vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file, line and key."""


@dataclass(frozen=True)
class Arch:
    """``Arch``: the network. The maps go to :func:`models.nets.build` as they are.

    Attributes:
        backbone: ``name``, ``class_num`` (the bits, unless a neck changes the length) and what else it takes.
        pretrained: False; True for the published weights; or a path or URL of weights.
        use_ssld: choose the distilled variant of the published weights.
        neck: ``name`` and settings, or None.
        head: ``name`` and settings, or None. A ``class_num`` of ``auto`` counts the classes of the list files.
    """

    backbone: Mapping[str, Any]
    pretrained: bool | str
    use_ssld: bool
    neck: Mapping[str, Any] | None
    head: Mapping[str, Any] | None

    @property
    def bits(self) -> int:
        """Length of the code: what the neck gives, or where it keeps the length, the backbone."""
        return int((self.neck or {}).get("class_num", self.backbone["class_num"]))


@dataclass(frozen=True)
class LossTerm:
    """One entry of ``Loss.Train``: a name in :data:`models.losses.LOSSES`, its weight and its settings."""

    name: str
    weight: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Schedule:
    """``Optimizer.lr``: learning rate by step.

    Attributes:
        name: ``Cosine``, ``Piecewise`` or ``Constant``.
        learning_rate: at the top, before warm-up ``warmup_start_lr``, at the end of a cosine ``eta_min``.
        warmup_epoch: linear warm-up, in epochs; may be a fraction.
        decay_epochs: where ``values`` change, for Piecewise: one fewer than the values.
        values: learning rates, for Piecewise.
    """

    name: str
    learning_rate: float
    warmup_epoch: float = 0.0
    warmup_start_lr: float = 0.0
    eta_min: float = 0.0
    decay_epochs: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class OptimizerConfig:
    """``Optimizer``.

    Attributes:
        name: ``SGD``, ``Momentum``, ``Adam`` or ``AdamW``.
        schedule: of the learning rate.
        momentum: of Momentum.
        beta1, beta2, epsilon: of Adam and AdamW.
        weight_decay: ``regularizer`` (L2, added to the gradient), or of AdamW ``weight_decay`` (decoupled).
        clip_norm: largest norm of one parameter's gradient, or None.
        clip_norm_global: largest norm of all gradients together, or None.
        backbone_lr_mult: factor on the learning rate of the pretrained layers.
    """

    name: str
    schedule: Schedule
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_norm_global: float | None = None
    backbone_lr_mult: float = 1.0


@dataclass(frozen=True)
class Stage:
    """One part of the training with its own schedule; a file without ``Stages`` has one.

    Attributes:
        name: for the log.
        epochs: may be a fraction.
        batch_size: pictures a step on one device.
        optimizer: with the stage's own changes laid over ``Optimizer``.
        first_block: blocks below it stay frozen and run on Paddle Inference; 0 trains everything.
    """

    name: str
    epochs: float
    batch_size: int
    optimizer: OptimizerConfig
    first_block: int = 0


@dataclass(frozen=True)
class Sampler:
    """``sampler``: how pictures make batches.

    Attributes:
        name: ``BatchSampler``, ``DistributedBatchSampler`` or ``PKSampler``.
        batch_size: pictures a batch on one device.
        shuffle: a new order each epoch.
        drop_last: leave out the last part that does not fill a batch.
        sample_per_id: pictures of each class in a batch, for PKSampler.
    """

    name: str
    batch_size: int
    shuffle: bool = True
    drop_last: bool = True
    sample_per_id: int | None = None


@dataclass(frozen=True)
class LoaderConfig:
    """``DataLoader.Train``, ``.Eval.Query`` or ``.Eval.Gallery``.

    Attributes:
        datasets: one map a source, see :func:`models.training.data.datasets.load_datasets`.
        transform_ops: one-key maps, see :class:`models.training.data.transforms.Transforms`.
        sampler: of the batches.
        num_workers: threads that decode and transform.
    """

    datasets: tuple[Mapping[str, Any], ...]
    transform_ops: tuple[Mapping[str, Any], ...]
    sampler: Sampler
    num_workers: int = 2


@dataclass(frozen=True)
class Metrics:
    """``Metric.Eval``: which figures are printed and logged; ``precision_topk`` and ``recall_topk`` are ranks."""

    recall_topk: tuple[int, ...] = (1, 5)
    precision_topk: tuple[int, ...] = ()
    mean_average_precision: bool = True


@dataclass(frozen=True)
class Amp:
    """``AMP``: mixed precision. ``level`` is O1 or O2."""

    level: str
    scale_loss: float
    use_dynamic_loss_scaling: bool


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training has, whatever it trains.

    Attributes:
        name: of the model, for logs and ``inference.yml``.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``gpu``.
        output_dir: of checkpoints, log, curves.
        checkpoints: path of a checkpoint to resume, or None.
        pretrained_model: path of weights of the whole network to start from, or None.
        save_interval: epochs between kept checkpoints ``epoch_N.pdparams``; 0 keeps only best and last.
        save_interval_s: seconds between writes of the last checkpoint.
        eval_during_train, eval_interval: evaluate every so many epochs (and at the end).
        print_batch_step: steps between lines where the output is no terminal.
        image_shape: (height, width) that the model is exported for; None takes the size it is evaluated at.
        save_inference_dir: where the export goes; None for ``output_dir/export``.
        ema_decay: of the averaged weights, or None.
        stages: one after the other.
        amp: mixed precision, or None.
        notes: a sentence for each key that was read and has no effect here.
    """

    name: str
    seed: int
    device: str
    output_dir: Path
    checkpoints: Path | None
    pretrained_model: Path | None
    save_interval: int
    save_interval_s: float
    eval_during_train: bool
    eval_interval: int
    print_batch_step: int
    image_shape: tuple[int, int] | None
    save_inference_dir: Path | None
    ema_decay: float | None
    stages: tuple[Stage, ...]
    amp: Amp | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """The checked configuration of a binary feature model.

    Attributes:
        feature_normalize: divide features by their length before they are compared (no effect on signs).
        binarize: ``sign`` or ``round``.
        arch: the network.
        losses: one or several, added up.
        train: what it learns from.
        query, gallery: what it is evaluated on, or None.
        metrics: which figures an evaluation gives.
    """

    feature_normalize: bool
    binarize: str
    arch: Arch
    losses: tuple[LossTerm, ...]
    train: LoaderConfig
    query: LoaderConfig | None
    gallery: LoaderConfig | None
    metrics: Metrics

    @property
    def class_num(self) -> int | None:
        """The number of classes that labels must lie below, or None where the list files decide."""
        if self.arch.head is not None:
            wanted = self.arch.head.get("class_num", "auto")
            return None if wanted == "auto" else int(wanted)
        counts = [int(term.settings["n_class"]) for term in self.losses if "n_class" in term.settings]
        return max(counts, default=None)
