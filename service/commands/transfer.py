"""``shitu gallery``: back up, restore, load codes in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .access import CommandError, Json, OnDuplicate
from .options import (
    ApiKeyOption,
    ConfigOption,
    DataDirOption,
    JsonOption,
    ServerOption,
    load_settings,
    open_gallery_access,
    refuse_both,
)


def add_commands(app: typer.Typer) -> None:
    """Put the commands under ``shitu gallery``."""
    app.command(
        epilog="Examples:  shitu gallery backup gallery.zip --server http://localhost:8000   |   "
        "shitu gallery backup - --data-dir data | ssh safe 'cat > gallery.zip'"
    )(backup)
    app.command(epilog="Example:  shitu gallery restore gallery.zip --data-dir restored")(restore)
    app.command(
        epilog="Examples:  shitu gallery load codes.npy --labels labels.txt --ids ids.txt --data-dir data   |   "
        "shitu gallery load codes.npy --labels labels.txt --server http://localhost:8000"
    )(load)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - is standard output.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back the gallery up into one file: codes, ids, labels, metadata, times.

    It is the gallery at one moment; a running service goes on meanwhile, and changes made meanwhile are not in it. The
    file appears whole, or not at all. Pictures that the service keeps (SHITU_KEEP_IMAGES) are not in it: copy the
    folder `images` of the data folder after the backup, and back into the data folder before the service starts.
    """
    from .output import print_error, print_json, progress_bar

    to_pipe = str(file) == "-"
    if not to_pipe and file.exists() and not force:
        raise CommandError(f"{file} is there: name another file, or replace it with --force")
    with open_gallery_access(server, api_key, data_dir, config) as gallery:
        unit = "items" if server is None else "bytes"
        with progress_bar(unit, quiet=as_json) as progress:
            info = gallery.backup(None if to_pipe else file, progress)
    facts = {"file": str(file), **info}
    if to_pipe:
        print_error(f"backed up {_contents(facts)}")
    elif as_json:
        print_json(facts)
    else:
        print(f"backed up {_contents(facts)} to {file}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `shitu gallery backup` wrote.")],
    *,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the gallery of a backup anew in a data folder that holds none; ids and times are kept.

    Everything in the file is checked. A restore that fails leaves nothing; a gallery that is there is never
    overwritten. For pictures that were kept, put the folder `images` back into the data folder, too.
    """
    from dataclasses import asdict

    from index_store import restore_gallery

    from .output import print_json, progress_bar

    folder = load_settings(config, data_dir=data_dir).data_dir
    with progress_bar("items", quiet=as_json) as progress:
        info = restore_gallery(file, folder, progress)
    facts = {"folder": str(folder), **asdict(info)}
    if as_json:
        print_json(facts)
    else:
        print(f"restored {_contents(facts)} into {folder}")


def load(
    codes: Annotated[
        Path, typer.Argument(metavar="CODES.npy", help="Packed codes, uint8 (n, bits / 8), as numpy.packbits makes.")
    ],
    *,
    labels: Annotated[Path, typer.Option("--labels", metavar="TXT", help="A label a line, in UTF-8.")],
    ids: Annotated[Path | None, typer.Option("--ids", metavar="TXT", help="An id a line; else they are made.")] = None,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", metavar="JSONL", help="A JSON object a line ({}: none).")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", metavar="TEXT", help="The model that made the codes.")
    ] = None,
    on_duplicate: Annotated[OnDuplicate, typer.Option(help="What to do about an item with an equal code.")] = "add",
    skip: Annotated[int, typer.Option("--skip", min=0, metavar="N", help="Leave the first N items out.")] = 0,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load codes that were made elsewhere, in batches, each as one durable transaction.

    All files are checked before the first item is stored. A new data folder takes the length of its codes from the
    file, and --fingerprint as their model (else it is `unknown`; start once with `shitu serve --adopt` and
    that model). With --ids a load can be repeated: items that are in already count as unchanged.
    """
    from index_store import UNKNOWN_FINGERPRINT

    from . import bulk
    from .bulk_input import BulkInput, read_codes
    from .output import print_json, print_load, print_unknown_model, progress_bar

    refuse_both(server, data_dir)
    given = BulkInput(read_codes(codes), labels, ids, metadata)
    if skip > len(given):
        raise typer.BadParameter(f"there are {len(given):,} items", param_hint="--skip")
    given.check()
    settings = load_settings(config, data_dir=data_dir) if server is None else None
    with bulk.open_sink(server, api_key, settings, given.bits, fingerprint) as sink:
        with progress_bar("items", quiet=as_json) as progress:
            report = bulk.load(given, sink, on_duplicate, skip, progress)
        facts = sink.info()
    if as_json:
        print_json({**report.to_json(), "items": facts["items"], "model_fingerprint": facts["model_fingerprint"]})
    else:
        print_load(report, facts["items"])
    if server is None and facts["model_fingerprint"] == UNKNOWN_FINGERPRINT:
        print_unknown_model()
    if report.done < report.codes:
        raise CommandError(bulk.how_to_go_on(given, report))
    if report.counts["refused"]:
        raise typer.Exit(1)


def _contents(facts: Json) -> str:
    size = f"{facts['bytes']:,} bytes"
    if "items" not in facts:  # a server's backup in a pipe, of which only its bytes were seen
        return f"the gallery, {size}"
    return f"{facts['items']:,} items ({size}, {facts['bits']}-bit codes of model {facts['model_fingerprint'] or '-'})"
