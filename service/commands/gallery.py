"""``shitu gallery``: enrol, list, remove, build; ``exchange`` adds import and export."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .access import CommandError, Enrolment, GalleryAccess, Json, Method, OnDuplicate, ServerRefusal
from .options import (
    ApiKeyOption,
    ConfigOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    ServerOption,
    load_settings,
    open_gallery_access,
    open_target,
    read_picture,
    refuse_both,
)

if TYPE_CHECKING:
    from .build import BuildPlan

_SHOWN = 50

app = typer.Typer(
    no_args_is_help=True,
    help="Enrol pictures, list, remove, build from a PP-ShiTu list, load codes, back up, restore, exchange galleries "
    "with PaddleClas. Commands work on a data folder (--data-dir, by default `data` or SHITU_DATA_DIR) or, most of "
    "them, on a running service (--server URL).",
)


@app.command(
    epilog="Examples:  shitu gallery add cola.jpg --label Cola   |   "
    "shitu gallery add front.jpg back.jpg --label 'Green tea' --server http://localhost:8000"
)
def add(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files; - is standard input.")],
    *,
    label: Annotated[str, typer.Option("--label", "-l", help="What the pictures show.")],
    identity: Annotated[str | None, typer.Option("--id", help="Id of the item, for a single picture.")] = None,
    metadata: Annotated[
        str, typer.Option("--metadata", metavar="JSON", help="A JSON object to keep with each item.")
    ] = "{}",
    on_duplicate: Annotated[OnDuplicate, typer.Option(help="What to do about an item with an equal code.")] = "add",
    detect: Annotated[
        bool, typer.Option("--detect", help="Enrol the best detected box, not the whole picture.")
    ] = False,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Enrol pictures under a label."""
    from .output import print_error, print_items, print_json

    if identity is not None and len(images) > 1:
        raise typer.BadParameter("an id belongs to one item: give one picture", param_hint="--id")
    extra = _json_object(metadata)
    with open_gallery_access(server, api_key, data_dir, config, device) as gallery:

        def enrol(path: Path) -> Json | None:
            try:
                return gallery.add(Enrolment(read_picture(path), label, identity, extra), on_duplicate, detect=detect)
            except Exception as error:
                if not _about_one_picture(error):
                    raise
                print_error(f"{path}: {error}")
                return None

        items = [item for item in map(enrol, images) if item is not None]
    if as_json:
        for item in items:
            print_json(item)
    elif items:
        print_items(items)
    if len(items) < len(images):
        raise typer.Exit(1)


@app.command(name="list", epilog="Example:  shitu gallery list --label Cola --json")
def list_items(
    *,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only items with exactly this label.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help=f"At most so many ({_SHOWN} in a table, else all).")
    ] = None,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List items in the order of their ids; with --json one item a line."""
    from itertools import islice

    from .output import print_error, print_items, print_json

    with open_gallery_access(server, api_key, data_dir, config) as gallery:
        items = gallery.items(label)
        if as_json:
            for item in islice(items, limit):
                print_json(item)
            return
        print_items(islice(items, limit or _SHOWN))
        if limit is None and next(items, None) is not None:
            print_error(f"the first {_SHOWN} items are shown; --limit shows more, --json all")


@app.command(epilog="Examples:  shitu gallery remove cola-1 cola-2   |   shitu gallery remove --label Cola")
def remove(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of the items.")] = None,
    *,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Remove all items with this label.")] = None,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove items by id, or all items with a label. Fails if there was none."""
    from .output import print_error, print_json

    if bool(ids) == (label is not None):
        raise typer.BadParameter("give either ids or --label")
    with open_gallery_access(server, api_key, data_dir, config) as gallery:
        removed = gallery.remove(list(dict.fromkeys(ids or []))) if label is None else gallery.remove_label(label)
    if as_json:
        print_json({"removed": removed})
    else:
        print(f"removed {removed:,}")
    if removed == 0:
        print_error(f"no item has the label {label!r}" if label is not None else "no item has such an id")
        raise typer.Exit(1)


@app.command(
    epilog="Example:  shitu gallery build inference_general_binary.yaml --data-dir data   "
    "(the file's IndexProcess names image_root, data_file, delimiter and index_operation)"
)
def build(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A PP-ShiTu configuration.")],
    *,
    operation: Annotated[
        Literal["new", "append", "remove"] | None,
        typer.Option(help="Instead of index_operation: new makes the gallery what the list says."),
    ] = None,
    image_root: Annotated[Path | None, typer.Option(help="Instead of image_root.")] = None,
    data_file: Annotated[Path | None, typer.Option(help="Instead of data_file.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="With append: hash pictures that are there already again.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if any line failed; new then takes nothing away.")
    ] = False,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the gallery from a PP-ShiTu list of pictures and labels.

    Ids come from the paths in the list, so a build can be repeated: append adds what is missing, new also takes away
    what the list does not name (after everything else is in), remove takes away what it names. Fails only if no line
    could be used, or with --strict.
    """
    from .build import BuildPlan
    from .build import build as carry_out
    from .listing import read_listing
    from .output import print_json, print_report, progress_bar

    refuse_both(server, data_dir)
    settings = load_settings(
        config, data_dir=data_dir, device=device, index_operation=operation, image_root=image_root, data_file=data_file
    )
    if settings.data_file is None:
        raise CommandError(f"{config} does not say which list to build from: IndexProcess.data_file is missing")
    if settings.image_root is None and settings.index_operation != "remove":
        raise CommandError(f"{config} does not say where the pictures are: IndexProcess.image_root is missing")
    removing = settings.index_operation == "remove"
    plan = BuildPlan(
        settings.index_operation,
        read_listing(settings.data_file, settings.delimiter, labels=not removing),
        settings.image_root or Path(),
        settings.build_batch_size,
        refresh,
        strict,
    )
    with open_target(server, api_key, settings) as gallery, progress_bar("pictures", quiet=as_json) as progress:
        if not removing:
            plan = _make_ready(gallery, plan)
        report = carry_out(gallery, plan, progress)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    if not report.worked or (strict and report.troubles):
        raise typer.Exit(1)


@app.command(
    epilog="Example:  SHITU_HASHER_DIR=models/new shitu gallery rehash --data-dir data   "
    "(stop the service of that folder first)"
)
def rehash(
    *,
    image_root: Annotated[
        Path | None, typer.Option(help="Where pictures lie that `gallery build` enrolled (image_root of --config).")
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Remove items whose picture is lost, instead of changing nothing.")
    ] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make all codes again with the configured model, from the pictures.

    They are taken where the service kept them (SHITU_KEEP_IMAGES) or from the image root of `gallery build`. The
    gallery changes at the end, as a whole; if a picture is lost nothing changes, unless --drop-missing.
    """
    from .local import LocalGallery
    from .output import print_json, print_rehash, progress_bar
    from .rehash import by_source
    from .rehash import rehash as carry_out

    settings = load_settings(config, data_dir=data_dir, device=device, image_root=image_root)
    with closing(LocalGallery(settings)) as gallery, progress_bar("items", quiet=as_json) as progress:
        store, fingerprint = gallery.store, gallery.hasher.fingerprint
        report = carry_out(
            store,
            gallery.vision,
            fingerprint,
            by_source(gallery.pictures, settings.image_root),
            drop_missing=drop_missing,
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_rehash(report)
    if not report.changed:
        raise typer.Exit(1)


@app.command(epilog="Example:  shitu gallery info --server http://localhost:8000")
def info(
    *,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe the gallery: items, bits, memory, the model its codes are of."""
    from .output import print_facts, print_json

    with open_gallery_access(server, api_key, data_dir, config) as gallery:
        facts = gallery.info()
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@app.command(
    epilog="Examples:  shitu gallery rebuild --method IVF --data-dir data   |   "
    "shitu gallery rebuild --method auto --server http://localhost:8000"
)
def rebuild(
    *,
    method: Annotated[
        Method | None,
        typer.Option(case_sensitive=False, help="Kind of index from now on; remembered with the gallery."),
    ] = None,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the search index anew from the stored codes, and wait for it.

    Flat compares with every code and is exact. IVF looks at the nearest of many lists, HNSW32 follows a graph of
    neighbours: both miss a few items and are many times faster in large galleries. auto chooses by size. A service goes
    on answering and enrolling meanwhile, also when this command is stopped.
    """
    from .output import print_facts, print_json, progress_bar

    with (
        open_gallery_access(server, api_key, data_dir, config) as gallery,
        progress_bar("building, %", quiet=as_json) as progress,
    ):
        facts = gallery.rebuild(method, lambda part: progress(round(part * 100), 100))
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def _make_ready(gallery: GalleryAccess, plan: BuildPlan) -> BuildPlan:
    """Prepare a gallery for a build; one of another model is taken over by *new*, which replaces its items anyway."""
    from index_store import FingerprintMismatch

    from .local import LocalGallery
    from .rehash import any_usable, by_listing
    from .rehash import rehash as make_codes_again

    try:
        gallery.prepare()
    except FingerprintMismatch:
        if plan.operation != "new" or not isinstance(gallery, LocalGallery):
            raise
        if not any_usable(plan.listing, plan.image_root, gallery.vision):
            raise CommandError("no picture of the list can be read; the gallery, of another model, stays") from None
        locate = by_listing(plan.listing, plan.image_root)
        make_codes_again(gallery.store, gallery.vision, gallery.hasher.fingerprint, locate, drop_missing=True)
        return replace(plan, hashed=frozenset(item.id or "" for item in gallery.stored_items()))
    return plan


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint="--metadata") from error
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, such as {"sku": 42}', param_hint="--metadata")
    return value


def _about_one_picture(error: Exception) -> bool:
    """Whether the next picture may still work."""
    from index_store import DuplicateCode, ItemExists
    from service.errors import PictureError

    if isinstance(error, ServerRefusal):
        return error.status in (400, 409, 413, 415) and error.code != "model_mismatch"
    unreadable = type(error) is CommandError
    return unreadable or isinstance(error, PictureError | ItemExists | DuplicateCode)
