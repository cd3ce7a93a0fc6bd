"""What an earlier run left in the output folder: a checkpoint to go on from, or files to set aside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .checkpoint import BEST_NAME, FINAL_NAME, LAST_NAME, load_checkpoint
from .config import ConfigError, TrainingConfig
from .journal import CURVES_NAME, LOG_NAME
from .model import fit_weights
from .task import Task

PREVIOUS_NAME = "previous"
_STATE = (
    "stage", "step", "frozen", "model", "optimizer", "recipe", "schedule", "scaler", "ema", "ema_steps", "pretrained",
    "best", "epoch_closed",
)  # fmt: skip


def find_checkpoint(config: TrainingConfig, resume: bool) -> Path | None:
    """Find the checkpoint to go on from, or None to begin: to resume, a later one goes before where it went on from."""
    last = config.output_dir / LAST_NAME
    return last if resume and last.is_file() else config.checkpoints


def read_checkpoint(task: Task, path: Path) -> dict[str, Any]:
    """Read the checkpoint that a training goes on from.

    Args:
        task: what is trained.
        path: the checkpoint.

    Raises:
        ConfigError: it is not one, or of another architecture, or of a configuration with more stages.
    """
    state = load_checkpoint(path)
    if "optimizer" not in state:
        raise ConfigError(f"{path} holds weights only; to start from them set Global.pretrained_model instead")
    if missing := [name for name in _STATE if name not in state]:
        raise ConfigError(f"{path} is a checkpoint of another version, without {', '.join(missing)}")
    if state["stage"] >= len(task.config.stages):
        stages = len(task.config.stages)
        raise ConfigError(f"{path} is of stage {state['stage'] + 1}, and this configuration has {stages}")
    fit_weights(task.build(), state["frozen"] | state["model"], str(path))
    return state


def set_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Move what an earlier training left to ``previous/``: its best weights are not those of the one that begins."""
    found = _written(folder)
    if not found:
        return
    target = folder / PREVIOUS_NAME
    target.mkdir(exist_ok=True)
    for path in _written(target):
        path.unlink()
    for path in found:
        path.replace(target / path.name)
    say(f"an earlier training of {folder} is now in {target}; --resume would have gone on with it")


def _written(folder: Path) -> list[Path]:
    """List what a training wrote to a folder."""
    names = (LAST_NAME, BEST_NAME, FINAL_NAME, LOG_NAME, CURVES_NAME)
    return [*(path for name in names if (path := folder / name).is_file()), *folder.glob("*epoch_*.pdparams")]
