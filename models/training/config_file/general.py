"""``Global``, ``AMP`` and ``EMA``: what every training has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.yaml_tree import Node

from ..config import Amp
from .fields import Reader, Reading, Unusable, flag, number, one_of, path, text, whole, without_effect


def read_common(
    reading: Reading, top: dict[str, Node], general: dict[str, Any], stem: str, *, is_evaluated: bool
) -> dict[str, Any]:
    """Make the fields that all configurations share, but for stages and notes; defaults included.

    Args:
        reading: collects problems.
        top: the sections of the file that are not empty.
        general: what was read of ``Global``.
        stem: name of the file without its suffix, the default name of the model.
        is_evaluated: whether there is something to evaluate on.
    """
    node = top.get("Global")
    settled = {**_DEFAULTS, "name": stem, **general}
    settled["device"] = _device(reading, node, settled)
    if not is_evaluated:
        settled["eval_during_train"] = False
        if node is not None and general.get("eval_during_train"):
            reading.note(node.value["eval_during_train"], "has no effect here: there is no DataLoader.Eval")
    amp, ema = reading.section(top.get("AMP"), _AMP, "AMP"), reading.section(top.get("EMA"), _EMA, "EMA")
    settled["amp"] = Amp(**{**_AMP_DEFAULTS, **amp}) if "AMP" in top else None
    settled["ema_decay"] = ema.get("decay")
    return settled


def _device(reading: Reading, node: Node | None, general: dict[str, Any]) -> str:
    """Take ``device``, or what ``use_gpu`` says, and remove the latter."""
    use_gpu = general.pop("use_gpu", None)
    device = general.get("device", {None: "auto", True: "gpu", False: "cpu"}[use_gpu])
    if node is not None and use_gpu is not None and (device == "gpu") != use_gpu:
        reading.refuse(node.value["use_gpu"], f"says otherwise than Global.device, {device}")
    return str(device)


def image_shape(_: Reading, node: Node) -> tuple[int, int]:
    """Read ``[3, height, width]``."""
    value = node.plain()
    whole_numbers = isinstance(value, list) and all(type(side) is int and side > 0 for side in value)
    if not whole_numbers or len(value) != 3 or value[0] != 3:
        raise Unusable(f"must be [3, height, width] in pixels, not {value!r}")
    return value[1], value[2]


_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "output_dir": Path("output"),
    "checkpoints": None,
    "pretrained_model": None,
    "save_interval": 0,
    "save_interval_s": 120.0,
    "eval_during_train": True,
    "eval_interval": 1,
    "print_batch_step": 10,
    "image_shape": None,
    "save_inference_dir": None,
}
GLOBAL: dict[str, Reader] = {
    "name": text,
    "seed": whole(0, 2**32 - 1),
    "device": one_of("auto", "cpu", "gpu"),
    "use_gpu": flag,
    "output_dir": path,
    "checkpoints": path,
    "pretrained_model": path,
    "epochs": number(above=0),
    "save_interval": whole(0),
    "save_interval_s": number(0),
    "eval_during_train": flag,
    "eval_interval": whole(1),
    "print_batch_step": whole(1),
    "image_shape": image_shape,
    "save_inference_dir": path,
    "use_visualdl": without_effect("output_dir has the log as JSON lines, and the curves as a picture"),
    "use_dali": without_effect("pictures are decoded and transformed on the CPU, as the service does"),
    "to_static": without_effect("the export is static, the training is dynamic"),
}
"""Keys of ``Global`` that every training has."""
_AMP: dict[str, Reader] = {
    "scale_loss": number(above=0),
    "use_dynamic_loss_scaling": flag,
    "level": one_of("O1", "O2"),
    "use_fp16_test": without_effect("the evaluation is in full precision"),
}
_AMP_DEFAULTS: dict[str, Any] = {"level": "O1", "scale_loss": 1.0, "use_dynamic_loss_scaling": False}
_EMA: dict[str, Reader] = {"decay": number(0, below=1)}
