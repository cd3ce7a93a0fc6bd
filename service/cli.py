"""The command line ``shitu``.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings. Results go to standard output (with ``--json`` for
machines), errors in clear lines to standard error. What a command needs is imported when it runs, so that
``shitu --help`` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from service.commands import exchange, gallery, keys, models, transfer
from service.commands.access import Query
from service.commands.options import (
    ApiKeyOption,
    ConfigOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    ServerOption,
    check_drawing,
    load_settings,
    open_gallery_access,
    read_picture,
)


class _Commands(TyperGroup):
    """Turns errors that were raised on purpose into one line and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that has gone away is no error
        except typer.Exit:
            raise
        except Exception as error:
            from service.commands.failures import explain
            from service.commands.output import print_error

            explained = explain(error)
            if explained is None:
                raise
            message, code = explained
            print_error(message)
            raise typer.Exit(code) from None
        else:
            return result


app = typer.Typer(
    name="shitu",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First steps:  shitu gallery add cola.jpg --label Cola   then   shitu search shelf.jpg   or   shitu serve",
)
exchange.add_commands(gallery.app)
transfer.add_commands(gallery.app)
app.add_typer(gallery.app, name="gallery")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; the entry point ``shitu``."""
    _keep_standard_output_for_results()
    # Paddle says so whenever it is imported, on standard error, where our own errors are to stand alone.
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    app(prog_name="shitu")


def _keep_standard_output_for_results() -> None:
    """Let what libraries write past Python go to standard error.

    Paddle 3.2.2 tells standard output of each mean in a model's graph, which would spoil ``--json``.
    """
    results = sys.stdout
    if not isinstance(results, io.TextIOWrapper) or sys.stderr is None:
        return
    results.flush()
    unbuffered = results.write_through  # python -u, PYTHONUNBUFFERED
    own = os.fdopen(os.dup(results.fileno()), "wb", 0 if unbuffered else -1)
    os.dup2(sys.stderr.fileno(), results.fileno())
    sys.stdout = io.TextIOWrapper(
        own, results.encoding, results.errors, line_buffering=results.line_buffering, write_through=unbuffered
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"shitu {metadata.version('shitu-hash')}")
        raise typer.Exit


@app.callback()
def shitu(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Recognise what is in a picture by comparing binary codes.

    Settings come from options, SHITU_* variables, a YAML file (--config or SHITU_CONFIG; PP-ShiTu's own
    configurations work) and defaults, in this order.
    """


@app.command(epilog="Examples:  shitu serve --data-dir data --port 8000   |   shitu serve --config my_ppshitu.yaml")
def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1; 0.0.0.0: all).")] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65535, help="Port to listen on (8000; 0: any free one).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", "-d", metavar="DIR", help="Folder of the gallery (data).")
    ] = None,
    config: ConfigOption = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|gpu", help="Where the models run (auto).")] = None,
    hasher_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Feature model (the bundled starter).")] = None,
    detector_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Main-body detector (the bundled starter); '': none.")
    ] = None,
    keep_images: Annotated[
        bool | None, typer.Option("--keep-images/--forget-images", help="Keep enrolled pictures for `gallery rehash`.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(metavar="debug|info|warning|error", help="(info)")] = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="Vouch, once, that this model made the codes of a gallery that does not know (an import)."
        ),
    ] = False,
) -> None:
    """Run the service until Ctrl-C or SIGTERM, which finish what was accepted.

    There is one worker process, because one process owns a data folder; threads use the other cores. Further settings
    are SHITU_* variables or come from --config.
    """
    from service.commands.serve import announce, failures_in_log
    from service.commands.serve import serve as run_service
    from service.logs import hold_back

    hold_back()
    settings = load_settings(
        config,
        host=host,
        port=port,
        data_dir=data_dir,
        device=device,
        hasher_dir=hasher_dir,
        detector_dir=detector_dir,
        keep_images=keep_images,
        log_level=log_level,
    )
    with failures_in_log(settings):
        run_service(settings, announce(settings), adopt=adopt)


@app.command(epilog="Examples:  shitu doctor   |   shitu doctor --data-dir data --json")
def doctor(
    *,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at versions, machine, settings, models and data folder, and say what to do. Changes nothing.

    Exit code 1 says that something keeps the service from working.
    """
    from service.commands.doctor import diagnose, has_failed, print_diagnosis

    findings = diagnose(config, {"data_dir": data_dir, "device": device})
    print_diagnosis(findings, as_json=as_json)
    if has_failed(findings):
        raise typer.Exit(1)


@app.command(
    epilog="Examples:  shitu search shelf.jpg   |   shitu search shelf.jpg --radius 120 --label Cola --json   |   "
    "shitu search shelf.jpg --draw found.png   |   shitu search --item cola-1 --server http://localhost:8000"
)
def search(
    image: Annotated[Path | None, typer.Argument(metavar="[IMAGE]", help="Picture file; - is standard input.")] = None,
    *,
    code: Annotated[str | None, typer.Option("--code", metavar="HEX", help="Search by a code instead.")] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="ID", help="Search by an item's code instead.")] = None,
    radius: Annotated[
        int | None, typer.Option("--radius", "-r", min=0, help="Greatest distance in bits, inclusive.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, max=1000, help="Most matches an object.")] = None,
    label: Annotated[str | None, typer.Option("--label", "-l", help="Only items with exactly this label.")] = None,
    nprobe: Annotated[
        int | None, typer.Option("--nprobe", min=1, help="Lists that an IVF index looks at: more find more, slower.")
    ] = None,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", min=1, help="Candidates that an HNSW32 index keeps: likewise.")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Take the whole picture as the object: no detection.")] = False,
    whole_image: Annotated[
        bool | None,
        typer.Option(
            "--whole-image/--boxes-only",
            help="Search the whole picture beside detected boxes, or only where there are none.",
            show_default=False,
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(
            "--draw", metavar="FILE", help="Also save the picture with what was found drawn onto it: .png or .jpg."
        ),
    ] = None,
    server: ServerOption = None,
    api_key: ApiKeyOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what is in a picture: a table of matches for each object in it."""
    from service.commands.output import print_json, print_matches

    if sum(given is not None for given in (image, code, item)) != 1:
        raise typer.BadParameter("give exactly one of IMAGE, --code and --item")
    if draw is not None:
        check_drawing(draw, image)
    picture = None if image is None else read_picture(image)
    query = Query(
        picture=picture,
        code=code,
        item_id=item,
        hamming_radius=radius,
        top_k=top_k,
        label=label,
        detect=False if whole else None,
        whole_image=whole_image,
        nprobe=nprobe,
        ef_search=ef_search,
    )
    with open_gallery_access(server, api_key, data_dir, config, device) as access:
        answer = access.search(query)
    if as_json:
        print_json(answer)
    else:
        print_matches(answer)
    if draw is not None and picture is not None:
        from service.commands.drawing import save_drawing

        save_drawing(draw, picture, answer)


if __name__ == "__main__":
    main()
