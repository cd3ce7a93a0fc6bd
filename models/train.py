"""Train a binary feature model: ``python -m models.train -c CONFIG.yaml [-o key.key=value ...]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.entry_point import explained, start
from models.inference import available_cores

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
    _tune_cpu()
    # Imported here, so that --help does not wait for Paddle.
    from models.inference import ModelError
    from models.training.check import check as check_config
    from models.training.config import ConfigError
    from models.training.config_file import load_config
    from models.training.data.datasets import DatasetError
    from models.training.loop import Interrupted, train
    from models.training.pretrained import PretrainedError

    console = Console(stderr=True)
    with explained(console, ConfigError, DatasetError, ModelError, PretrainedError, FloatingPointError, OSError):
        settings = load_config(config, override or ())
        for note in settings.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
        if check:
            check_config(settings, console)
            return
        try:
            train(settings, console, resume=resume)
        except Interrupted as error:
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(_INTERRUPTED) from None


def _tune_cpu() -> None:
    """Set what Paddle's mathematics library reads once, when it is loaded; what the user has set stays."""
    # Paddle would set one thread. Processes that train together share the cores.
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
    # Paddle ships an old MKL that takes its slowest kernels on processors that are not Intel's: asked for AVX2,
    # a matrix product is five times as fast there.
    if "avx2" in (cpuinfo := _read_cpuinfo()) and "GenuineIntel" not in cpuinfo:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _read_cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8") if path.exists() else ""


if __name__ == "__main__":
    start(main)
