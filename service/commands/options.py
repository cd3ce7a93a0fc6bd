"""Options that several commands share, and what they open."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .access import CommandError, GalleryAccess

if TYPE_CHECKING:
    from service.settings import Settings

    from .client import RemoteGallery

DRAWING_SUFFIXES = (".png", ".jpg", ".jpeg")

_WHERE = "Where the gallery is"

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="YAML", help="Settings file, such as a PP-ShiTu configuration."),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", "-d", metavar="DIR", help="Work on this data folder, in this process.", rich_help_panel=_WHERE
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", "-s", metavar="URL", help="Work on the gallery of a running service.", rich_help_panel=_WHERE
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="SHITU_API_KEY",
        show_default=False,
        help="Key for that service; the variable keeps it out of the list of processes.",
        rich_help_panel=_WHERE,
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="auto|cpu|gpu", help="Where the models of a data folder run.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def load_settings(config: Path | None, **overrides: Any) -> Settings:
    """Read the settings for a command; see ``Settings.load``."""
    from service.settings import Settings

    return Settings.load(config, **overrides)


@contextmanager
def open_gallery_access(
    server: str | None,
    api_key: str | None,
    data_dir: Path | None,
    config: Path | None,
    device: str | None = None,
) -> Iterator[GalleryAccess]:
    """Open what the options name: the server's gallery, or a data folder by default.

    Raises:
        typer.BadParameter: both are named.
        SettingsError, GalleryError and so on: see ``LocalGallery`` and ``RemoteGallery``.
    """
    refuse_both(server, data_dir)
    settings = load_settings(config, data_dir=data_dir, device=device) if server is None else None
    with open_target(server, api_key, settings) as gallery:
        yield gallery


@contextmanager
def open_target(server: str | None, api_key: str | None, settings: Settings | None) -> Iterator[GalleryAccess]:
    """Open the server's gallery if there is a server, else the data folder of the settings."""
    if server is not None:
        gallery: GalleryAccess = open_server(server, api_key)
    else:
        from .local import LocalGallery

        gallery = LocalGallery(settings or load_settings(None))
    try:
        yield gallery
    finally:
        gallery.close()


def open_server(server: str, api_key: str | None) -> RemoteGallery:
    """Open a server's gallery; warn where others on the way could read the key."""
    from service.security.valid_keys import is_loopback

    from .client import RemoteGallery
    from .output import print_error

    gallery = RemoteGallery(server, api_key=api_key)
    if api_key is not None and gallery.is_plain_http and not is_loopback(gallery.host):
        print_error("the API key goes to the server unencrypted: use https:// where others share the network")
    return gallery


def refuse_both(server: str | None, data_dir: Path | None) -> None:
    """Refuse a server together with a data folder."""
    if server is not None and data_dir is not None:
        raise typer.BadParameter("give either --data-dir or --server: a server has its own data folder")


def check_drawing(path: Path, image: Path | None) -> None:
    """Refuse what no drawing can be saved as, before anything is searched.

    Raises:
        typer.BadParameter: there is no picture to draw on, or ``path`` ends in no known format.
    """
    if image is None:
        raise typer.BadParameter("needs an IMAGE to draw on", param_hint="--draw")
    if path.suffix.lower() not in DRAWING_SUFFIXES:
        raise typer.BadParameter(f"{path} must end in {' or '.join(DRAWING_SUFFIXES)}", param_hint="--draw")


def read_picture(path: Path) -> bytes:
    """Read a picture file; ``-`` is standard input."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
