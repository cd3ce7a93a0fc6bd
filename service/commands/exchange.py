"""``shitu gallery import`` and ``export``: galleries of PaddleClas's PP-ShiTu."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .access import CommandError
from .options import ConfigOption, DataDirOption, JsonOption, load_settings

DelimiterOption = Annotated[
    str | None,
    typer.Option(help="What parts path and label in the texts of id_map.pkl (IndexProcess.delimiter, else a tab)."),
]


def add_commands(app: typer.Typer) -> None:
    """Put the commands under ``shitu gallery``."""
    app.command(
        name="import",
        epilog="Example:  shitu gallery import gallery/index --data-dir data   then   shitu serve --adopt",
    )(import_gallery)
    app.command(
        name="export",
        epilog="Example:  shitu gallery export gallery/index --data-dir data   (stop the service of that folder first)",
    )(export_gallery)


def import_gallery(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with vector.index and id_map.pkl.")],
    *,
    delimiter: DelimiterOption = None,
    fingerprint: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Fingerprint of the model that made the codes, if you know it.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a gallery of PaddleClas (PP-ShiTu with dist_type hamming): its codes, without hashing any picture.

    The index is Flat, IVF or HNSW32. Neither file is trusted: the pickle is read without running it. Both are read
    into memory. A text `path<delimiter>label` gives an item the id that `gallery build` gives it, so an import can be
    repeated; without the delimiter the whole text is the label. Whose model made the codes is not in the files: a new
    gallery is of model `unknown` until `shitu serve --adopt` or unless --fingerprint says it. Works on a data folder,
    not on a running service. Fails only if no vector could be used.
    """
    from index_store import UNKNOWN_FINGERPRINT, read_paddleclas

    from .output import print_import, print_json, print_unknown_model, progress_bar
    from .paddleclas import import_paddleclas, open_for_import

    if fingerprint is not None and not fingerprint.strip():
        raise typer.BadParameter("is empty: leave it out if you do not know the model", param_hint="--fingerprint")
    settings = load_settings(config, data_dir=data_dir, delimiter=delimiter)
    foreign = read_paddleclas(folder)
    with (
        open_for_import(settings, foreign.bits, fingerprint) as store,
        progress_bar("vectors", quiet=as_json) as progress,
    ):
        report = import_paddleclas(store, foreign, settings.delimiter, progress)
    if as_json:
        print_json(report.to_json())
    else:
        print_import(report)
    if report.model_fingerprint == UNKNOWN_FINGERPRINT:
        print_unknown_model()
    if not report.worked:
        raise typer.Exit(1)


def export_gallery(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for vector.index and id_map.pkl.")],
    *,
    method: Annotated[Literal["Flat", "IVF", "HNSW32"], typer.Option(help="Kind of the Faiss index.")] = "Flat",
    delimiter: DelimiterOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an index that is there.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the gallery as PaddleClas's PP-ShiTu reads it (dist_type hamming), in the order of enrolment.

    The texts of id_map.pkl are `path<delimiter>label`; `item:<id>` stands for the path of an item that came from no
    gallery list. PaddleClas's predictor shows only what stands between the first two blanks of a text, so of a label
    with blanks the first word, and of a path with blanks no label at all. Metadata and kept pictures are left out.
    Works on a data folder, not on a running service.
    """
    from .output import print_export, print_json, progress_bar
    from .paddleclas import export_paddleclas, open_folder

    settings = load_settings(config, data_dir=data_dir, delimiter=delimiter)
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is no folder: name one for vector.index and id_map.pkl")
    with open_folder(settings) as store, progress_bar("items", quiet=as_json) as progress:
        report = export_paddleclas(
            store, folder, method=method, delimiter=settings.delimiter, overwrite=force, progress=progress
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_export(report)
