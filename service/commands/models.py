"""``shitu models``: which models there are, fetching published ones, and what is known of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .access import CommandError
from .options import ConfigOption, JsonOption, load_settings

if TYPE_CHECKING:
    from models.hub import PullRequest

    from .model_shelf import Shelf

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INTERRUPTED = 130

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache-dir", metavar="DIR", help="Folder of pulled models (SHITU_MODEL_CACHE_DIR)."),
]

app = typer.Typer(no_args_is_help=True, help="List, fetch and describe models to serve with.")


@app.command(name="list", epilog="Example:  shitu models list --check")
def list_models(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Read every pulled file and compare its checksum; fail if one differs.")
    ] = False,
    cache_dir: CacheOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List bundled, published and pulled models; with --json one a line."""
    from .output import print_error, print_json, print_models

    models = list(_shelf(cache_dir, config).models(contents=check))
    if as_json:
        for model in models:
            print_json(model.to_json())
    else:
        print_models(models)
    damaged = [model for model in models if model.problems]
    for model in damaged:
        print_error(f"{model.name}: {'; '.join(model.problems)}: pull it again with --force")
    if check and damaged:
        raise typer.Exit(1)


@app.command(epilog="Example:  shitu models show general-v1")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name as in `shitu models list`.")],
    *,
    cache_dir: CacheOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the card of a model: what it is, its licence and address, how it is checked and used."""
    from .model_shelf import advice, describe
    from .output import print_card, print_json

    model = _shelf(cache_dir, config).find(name)
    if as_json:
        print_json(describe(model) | {"size_bytes": model.size_bytes, "notes": advice(model)})
    else:
        print_card(describe(model), advice(model))


@app.command(
    epilog="Examples:  shitu models pull mainbody-detector   |   shitu models pull general-v1 --from general_infer.tar"
    "   |   shitu models pull https://example.org/my_infer.tar --name mine"
)
def pull(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name as in `shitu models list`; or address or path of a tar or zip."),
    ],
    *,
    archive: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Unpack this copy of the archive instead of fetching it."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option("--mirror", metavar="URL", help="Fetch a published model from a copy of its publisher's store."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="What the archive must have as its SHA-256.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name for a model of your own (its file's).")
    ] = None,
    kind: Annotated[
        Literal["hasher", "detector"] | None, typer.Option(help="What a model of your own is (hasher).")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Model folder to make, instead of one in the cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier pull left.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not load the model and run it on a picture before it counts.")
    ] = False,
    cache_dir: CacheOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model and check it; what is there and intact stays. An interrupted download goes on where it stopped."""
    from .model_pull import carry_out
    from .output import print_error, print_json, print_pull

    request = _request(_shelf(cache_dir, config), model, archive, mirror, sha256, name, kind, to)
    try:
        report = carry_out(request, force=force, verify=not no_verify, quiet=as_json)
    except KeyboardInterrupt:
        print_error("stopped; what came of the download is kept, and the same command goes on from there")
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json(report.to_json())
    else:
        print_pull(report)


def _shelf(cache_dir: Path | None, config: Path | None) -> Shelf:
    from .model_shelf import Shelf

    return Shelf(load_settings(config, model_cache_dir=cache_dir).model_cache_dir)


def _request(
    shelf: Shelf,
    model: str,
    archive: Path | None,
    mirror: str | None,
    sha256: str | None,
    name: str | None,
    kind: Literal["hasher", "detector"] | None,
    to: Path | None,
) -> PullRequest:
    """Make out what the arguments ask for.

    Raises:
        typer.BadParameter: they do not go together.
        UnknownModel, CommandError: there is no such model or file.
    """
    from models.hub import CATALOGUE, PullRequest

    from .model_shelf import BUNDLED

    if sha256 is not None and not _SHA256.fullmatch(sha256 := sha256.lower()):
        raise typer.BadParameter("must be 64 hexadecimal digits", param_hint="--sha256")
    if archive is not None and mirror is not None:
        raise typer.BadParameter("give either --from or --mirror")
    if model not in CATALOGUE:
        own = _own_source(model, archive, mirror)
        called = name or _stem(model)
        if called in CATALOGUE or called in BUNDLED or not _NAME.fullmatch(called):
            raise typer.BadParameter(
                f"{called} cannot be the name of a model of your own: give another one, of letters, digits, ., _ and -",
                param_hint="--name",
            )
        return PullRequest(called, kind or "hasher", own, _folder(shelf, called, to), sha256)
    if name is not None or kind is not None:
        raise typer.BadParameter(f"{model} is published, and has its name and kind", param_hint="--name, --kind")
    published = CATALOGUE[model]
    source: str | Path = published.url if mirror is None else published.at(_address(mirror))
    if archive is not None:
        source = _file(archive)
    return PullRequest(model, published.kind, source, _folder(shelf, model, to), sha256, published.files)


def _own_source(model: str, archive: Path | None, mirror: str | None) -> str | Path:
    from models.hub import CATALOGUE

    from .model_shelf import BUNDLED, unknown

    if model in BUNDLED:
        raise CommandError(f"{model} comes with the package: there is nothing to pull")
    if archive is not None or mirror is not None:
        raise unknown(model, list(CATALOGUE))
    if "://" in model:
        return _address(model)
    if Path(model).exists():
        return _file(Path(model))
    if "/" in model:
        raise CommandError(f"there is no file {model}")
    raise unknown(model, list(CATALOGUE))


def _address(text: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(f"{text} is no address of http or https; a file that is here can be named by its path")
    return text


def _file(path: Path) -> Path:
    if path.is_dir():
        raise CommandError(f"{path} is a folder: a model folder is served as it is (SHITU_HASHER_DIR={path})")
    if not path.is_file():
        raise CommandError(f"there is no file {path}")
    return path.absolute()


def _stem(source: str) -> str:
    """Name a model after its archive."""
    from urllib.parse import unquote, urlsplit

    last = unquote(urlsplit(source).path if "://" in source else source).rstrip("/").rpartition("/")[2]
    return re.sub(r"\.(tar\.gz|tgz|tar|zip)$", "", last)


def _folder(shelf: Shelf, name: str, to: Path | None) -> Path:
    return shelf.folder(name) if to is None else to.expanduser().absolute()
