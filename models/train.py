"""Train a binary feature model: ``python -m models.train -c CONFIG.yaml [-o key.key=value ...] [--resume]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.inference import available_cores


def main(
    config: Annotated[Path, typer.Option("-c", "--config", help="configuration, see models/configs")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="key.key=value, repeatable")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint, if there is one")] = False,
) -> None:
    """Train the model that a configuration describes.

    Progress goes to the terminal and to output_dir/train.jsonl. A checkpoint is written every two minutes and on
    Ctrl-C; --resume goes on from it. The weights end up in output_dir/final.pdparams; models.export makes a model
    folder of them that the service loads.
    """
    # Paddle would set one thread when this is unset, and reads it once: before it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    # Imported here, so that --help does not wait for Paddle.
    from models.training.config import ConfigError, load_config
    from models.training.datasets import DatasetError
    from models.training.loop import Interrupted, train

    console = Console(stderr=True)
    try:
        train(load_config(config, override or ()), console, resume=resume)
    except (ConfigError, DatasetError, FloatingPointError) as error:
        console.print(f"[red]error:[/] {error}")
        raise typer.Exit(2) from None
    except Interrupted as error:
        console.print(str(error))
        raise typer.Exit(130) from None


if __name__ == "__main__":
    typer.run(main)
