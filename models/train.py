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
    _tune_cpu()
    # Imported here, so that --help does not wait for Paddle.
    from models.training.config import ConfigError, load_config
    from models.training.datasets import DatasetError
    from models.training.loop import Interrupted, train

    console = Console(stderr=True)
    try:
        train(load_config(config, override or ()), console, resume=resume)
    except (ConfigError, DatasetError, FloatingPointError, ValueError) as error:
        console.print(f"[red]error:[/] {error}")
        raise typer.Exit(2) from None
    except Interrupted as error:
        console.print(str(error))
        raise typer.Exit(130) from None


def _tune_cpu() -> None:
    """Set what Paddle's mathematics library reads once, when it is loaded; what the user has set stays."""
    # Paddle would set one thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    # Paddle ships an old MKL that takes its slowest kernels on processors that are not Intel's: asked for AVX2,
    # a matrix product is five times as fast there.
    if "avx2" in (cpuinfo := _read_cpuinfo()) and "GenuineIntel" not in cpuinfo:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _read_cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8") if path.exists() else ""


if __name__ == "__main__":
    typer.run(main)
