"""Export a trained model as a folder the service loads: ``python -m models.export -c CONFIG.yaml``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def main(
    config: Annotated[Path, typer.Option("-c", "--config", help="the configuration the model was trained with")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="key.key=value, repeatable")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="a final.pdparams, or a last.pdparams (default: final in output_dir)")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="model folder to write (default: output_dir/export)")] = None,
    hamming_radius: Annotated[
        int | None, typer.Option(help="inclusive radius to recommend (models.recommend measures and writes one)")
    ] = None,
) -> None:
    """Write inference.json, inference.pdiparams and inference.yml (preprocessing, bits, binarisation, fingerprint).

    Batch and picture size are dynamic, and the classification head is left out: the graph gives the features whose
    signs are the code. The folder replaces an older one in one step.
    """
    # Imported here, so that --help does not wait for Paddle.
    from models.inference import ModelError
    from models.training.checkpoint import load_checkpoint
    from models.training.config import ConfigError, load_config

    console = Console(stderr=True)
    try:
        settings = load_config(config, override or ())
        state = load_checkpoint(weights or settings.output_dir / "final.pdparams")
        if "weights" in state:  # a training in progress: take the averages of its stage
            state = state["weights"] | state["ema"]
        folder = export(settings, state, target or settings.output_dir / "export", hamming_radius)
    except (ConfigError, ModelError, OSError, ValueError) as error:
        console.print(f"[red]error:[/] {error}")
        raise typer.Exit(2) from None
    console.print(f"wrote {folder}")


def export(config, weights, target: Path, hamming_radius: int | None = None) -> Path:
    """Export a configuration's network with these weights.

    Args:
        config: ``models.training.config.Config``.
        weights: arrays by parameter name, as ``models.training.loop.train`` writes them.
        target: folder to write or replace.
        hamming_radius: what ``inference.yml`` recommends, or None.

    Returns:
        ``target``.

    Raises:
        ValueError: a parameter is missing.
        ModelError: the exported graph does not load.
    """
    import paddle

    from models.inference import Hasher, Manifest, ModelFiles, Preprocessing
    from models.training.loop import build_model

    model = build_model(config, class_num=1)
    model.head = None
    missing = set(model.state_dict()) - set(weights)
    if missing:
        raise ValueError(f"the weights lack {len(missing)} parameters of the network, among them {min(missing)}")
    model.set_state_dict({name: weights[name] for name in model.state_dict()})
    model.eval()
    preprocessing = Preprocessing.from_ops(config.transform_ops)
    if config.export_size is not None:
        preprocessing = replace(preprocessing, size=config.export_size)
    bits = int(config.backbone["class_num"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary) / "model"
        spec = paddle.static.InputSpec([None, 3, None, None], "float32", name="x")
        paddle.jit.save(model, str(folder / "inference"), input_spec=[spec])
        manifest = Manifest(
            kind="hasher",
            preprocessing=preprocessing,
            bits=bits,
            binarize=config.binarize,
            hamming_radius=hamming_radius,
            name=config.name,
        )
        fingerprint = manifest.compute_fingerprint(ModelFiles.find(folder), bits)
        replace(manifest, fingerprint=fingerprint).write(folder)
        Hasher.load(folder, "cpu")
        kept = [path for path in target.glob("*") if path.name not in {p.name for p in folder.iterdir()}]
        for path in kept:  # a model card and the like stay
            shutil.copy2(path, folder / path.name)
        if target.exists():
            target.rename(Path(temporary) / "replaced")
        folder.rename(target)
    return target


if __name__ == "__main__":
    typer.run(main)
