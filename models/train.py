"""Train a feature model or a detector: ``python -m models.train -c CONFIG.yaml [-o key.key=value ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.entry_point import explained, start

_INTERRUPTED = 130  # as shells have it for SIGINT


def main(
    config: Annotated[Path, typer.Option("-c", "--config", help="configuration, see models/configs")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="key.key=value, repeatable")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from last.pdparams in Global.output_dir, if it is there")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="check configuration and data, and print what would run")
    ] = False,
) -> None:
    """Train the model that a configuration describes.

    Into Global.output_dir go train.jsonl (every step and evaluation), curves.png, last.pdparams (a checkpoint, every
    two minutes and on Ctrl-C; --resume goes on from it), best.pdparams and final.pdparams; what an earlier training
    left there moves to previous/. Then models.eval measures the weights, and models.export makes a folder of them that
    the service loads.

    On several devices: python -m paddle.distributed.launch --devices 0,1 models/train.py -c CONFIG.yaml; without GPUs
    --nproc_per_node 2 --backend gloo instead of --devices.
    """
    # Imported here, so that --help does not wait for Paddle.
    from models.inference import ModelError
    from models.training.check import check as check_config
    from models.training.config import ConfigError
    from models.training.config_file import load_config
    from models.training.data.datasets import DatasetError
    from models.training.detection.check import check_detection
    from models.training.detection.config import DetectionConfig
    from models.training.loop import Interrupted, train
    from models.training.pretrained import PretrainedError

    console = Console(stderr=True)
    with explained(console, ConfigError, DatasetError, ModelError, PretrainedError, FloatingPointError, OSError):
        settings = load_config(config, override or ())
        for note in settings.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
        if check:
            (check_detection if isinstance(settings, DetectionConfig) else check_config)(settings, console)
            return
        try:
            train(settings, console, resume=resume)
        except Interrupted as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(_INTERRUPTED) from None


if __name__ == "__main__":
    start(main)
