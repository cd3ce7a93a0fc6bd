"""Export a trained model as a folder the service loads: ``python -m models.export -c CONFIG.yaml``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from models.entry_point import explained, start

if TYPE_CHECKING:
    from models.inference import Preprocessing
    from models.training.checkpoint import Weights
    from models.training.config import Config


def main(
    config: Annotated[Path, typer.Option("-c", "--config", help="the configuration the model was trained with")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="key.key=value, repeatable")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="best, final or last.pdparams (default: best, else final in output_dir)")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="folder to write (default: Global.save_inference_dir, else output_dir/export)")
    ] = None,
    hamming_radius: Annotated[
        int | None, typer.Option(help="inclusive radius to recommend (models.recommend measures and writes one)")
    ] = None,
) -> None:
    """Write inference.json, inference.pdiparams and inference.yml (preprocessing, bits, binarisation, fingerprint).

    The batch is dynamic, and so is the picture's size where the network allows it. The classification head is left
    out: the graph gives the features that make the code. A detector's graph gives boxes, as PP-ShiTu's does. The folder
    replaces an older one in one step; what else lies in it, such as a model card, stays.
    """
    # Imported here, so that --help does not wait for Paddle.
    from models.inference import ModelError
    from models.training.checkpoint import load_weights, trained_weights
    from models.training.config import ConfigError
    from models.training.config_file import load_config
    from models.training.detection.config import DetectionConfig
    from models.training.detection.detector import export_detector

    console = Console(stderr=True)
    with explained(console, ConfigError, ModelError, OSError):
        settings = load_config(config, override or ())
        source = weights or trained_weights(settings.output_dir)
        folder = target or settings.save_inference_dir or settings.output_dir / "export"
        if isinstance(settings, DetectionConfig):
            if hamming_radius is not None:
                raise ConfigError("--hamming-radius is of feature models, and this is a detector")
            export_detector(settings, load_weights(source), folder, source=str(source))
        else:
            export(settings, load_weights(source), folder, hamming_radius, source=str(source))
    console.print(f"wrote {folder}", markup=False, highlight=False)


def export(
    config: Config, weights: Weights, target: Path, hamming_radius: int | None = None, *, source: str = "the weights"
) -> Path:
    """Export a configuration's network with these weights.

    Args:
        config: what was trained.
        weights: arrays by parameter name, as :func:`models.training.checkpoint.load_weights` reads them.
        target: folder to write or replace.
        hamming_radius: what ``inference.yml`` recommends, or None.
        source: where the weights come from, for messages.

    Returns:
        ``target``.

    Raises:
        ConfigError: a parameter is missing or has another shape, or the picture size does not suit the network.
        ModelError: the exported graph does not load.
        OSError: the target cannot be written, or is no folder.
    """
    import paddle

    from models.inference import Hasher, Manifest, ModelFiles
    from models.training.model import build_code_model
    from models.training.model_folder import replaced_folder

    model = build_code_model(config, weights, source)
    fixed_size = model.backbone.fixed_input_size
    preprocessing = _serving_preprocessing(config, fixed_size)
    with replaced_folder(target) as folder:
        spec = paddle.static.InputSpec([None, 3, *(fixed_size or (None, None))], "float32", name="x")
        paddle.jit.save(model, str(folder / "inference"), input_spec=[spec])
        manifest = Manifest(
            kind="hasher",
            preprocessing=preprocessing,
            bits=config.arch.bits,
            binarize=config.binarize,
            hamming_radius=hamming_radius,
            name=config.name,
        )
        fingerprint = manifest.compute_fingerprint(ModelFiles.find(folder), config.arch.bits)
        replace(manifest, fingerprint=fingerprint).write(folder)
        Hasher.load(folder, "cpu")
    return target


def _serving_preprocessing(config: Config, fixed_size: tuple[int, int] | None) -> Preprocessing:
    """Take the evaluation's preprocessing, else the training's without what is random in it."""
    from models.training.config import ConfigError
    from models.training.data.transforms import served_preprocessing

    loader = config.query or config.train
    preprocessing = served_preprocessing(loader.transform_ops)
    if config.image_shape is not None and preprocessing.input_size != config.image_shape:
        preprocessing = replace(preprocessing, size=config.image_shape, resize_short=None, crop=None)
    if fixed_size is not None and preprocessing.input_size != fixed_size:
        name, size = config.arch.backbone["name"], preprocessing.input_size
        raise ConfigError(
            f"{name} takes pictures of {list(fixed_size)}, and they would be {list(size)}: Global.image_shape"
        )
    return preprocessing


if __name__ == "__main__":
    start(main)
