"""``python -m service.demo``: draw packs, enrol them in a real service, search them again, print what was found."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console
from rich.panel import Panel as Frame
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.demo.gallery import Photo, gallery_photos, held_out_photo
from service.demo.packs import packs
from service.demo.photo import encode_jpeg
from service.demo.server import ServiceFailed, ServiceProcess
from service.demo.shelf import sample_boards, shelf_photo
from service.demo.tour import Finding, enrol, search

_SHARE_EXPECTED = 0.7
_ROWS_SHOWN = 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code: 0 when it went well, 1 when not, 130 when interrupted early."""
    options = _parser().parse_args(arguments)
    stop_at_once = options.exit or os.environ.get("DEMO_EXIT", "") not in ("", "0")
    console = Console()
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="shitu-demo-") as folder:
            return _demonstrate(console, Path(folder), stop_at_once)
    except ServiceFailed as error:
        console.print("[bold red]The demo failed:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except httpx.TransportError as error:
        console.print(f"[bold red]The demo failed:[/] the service stopped answering ({type(error).__name__}: {error})")
        return 1
    except OSError as error:
        console.print(f"[bold red]The demo failed:[/] no temporary folder could be used: {error}. Set TMPDIR to one.")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; the service is stopped and its temporary folder deleted.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.demo", description=__doc__)
    parser.add_argument(
        "--exit", action="store_true", help="stop the service at the end instead of leaving it up (also DEMO_EXIT=1)"
    )
    return parser


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _demonstrate(console: Console, folder: Path, stop_at_once: bool) -> int:
    console.rule("[bold]shitu-hash demo")
    with (
        ServiceProcess(folder / "data", folder / "service.log") as service,
        httpx.Client(base_url=service.url, timeout=60.0, trust_env=False) as client,
    ):
        # The pictures are drawn while the models load.
        gallery, held_out, shelf = _draw(console, folder / "pictures")
        with console.status("waiting for the service to load its models"):
            waited = service.wait_until_ready()
        console.print(f"The service is ready at {service.url} [dim](after {waited:.1f} s more)[/]")
        with _progress(console) as bar:
            started = time.perf_counter()
            task = bar.add_task("enrolling", total=len(gallery))
            stored = enrol(client, gallery, lambda done: bar.update(task, completed=done))
            rate = stored / (time.perf_counter() - started)
            task = bar.add_task("searching", total=len(held_out) + len(shelf))
            singles = search(client, held_out, lambda done: bar.update(task, completed=done))
            on_shelf = search(client, shelf, lambda done: bar.update(task, completed=len(held_out) + done))
        index = client.get("/index").json()
        console.print(
            f"Enrolled {stored} pictures of {len(held_out)} products through POST /gallery/batch, "
            f"{rate:.0f} a second, as codes of {index['bits']} bits ({index['bits'] // 8} bytes)."
        )
        console.print(_table("Held-out photos: another angle, light and background", singles))
        console.print(_table("The shelf photo, cut into its packs", on_shelf))
        good = _verdict(console, singles + on_shelf)
        if stop_at_once:
            code = service.stop()
            console.print("The service is stopped and its temporary folder deleted.")
            if code != 0:
                raise ServiceFailed(f"the service did not stop cleanly (exit code {code}).\n{service.log_end()}")
            return 0 if good else 1
        _invite(console, service.url, folder / "pictures")
        try:
            code = service.wait()
        except KeyboardInterrupt:
            service.stop()
            console.print("\nThe service is stopped and its temporary folder deleted.")
            return 0 if good else 1
        raise ServiceFailed(f"the service ended by itself with exit code {code}.\n{service.log_end()}")


def _draw(console: Console, folder: Path) -> tuple[list[Photo], list[Photo], list[Photo]]:
    """Draw gallery, held-out photos and the shelf; the latter two are also left as files in ``folder``."""
    products = packs()
    gallery: list[Photo] = []
    held_out: list[Photo] = []
    folder.mkdir()
    with _progress(console) as bar:
        for product in bar.track(products, description="drawing packs"):
            gallery += gallery_photos(product)
            photo = held_out_photo(product)
            held_out.append(photo)
            name = product.label.lower().replace(" ", "-").replace("-%", "")
            (folder / f"{name}.jpg").write_bytes(encode_jpeg(photo.picture))
    shelf = shelf_photo(sample_boards(products))
    (folder / "shelf.jpg").write_bytes(encode_jpeg(shelf.picture))
    return gallery, held_out, [Photo(label, shelf.crop(i)) for i, label in enumerate(shelf.labels)]


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def _table(title: str, findings: Sequence[Finding]) -> Table:
    """The wrong ones and some of the right ones, in the order in which they were searched."""
    right = [finding for finding in findings if finding.right]
    shown = {id(finding) for finding in findings if not finding.right} | {id(f) for f in right[:_ROWS_SHOWN]}
    table = Table(title=f"{title}: {len(right)} of {len(findings)} right", title_justify="left")
    table.add_column("query")
    table.add_column("found")
    table.add_column("Hamming distance", justify="right")
    table.add_column("right?", justify="center")
    for finding in findings:
        if id(finding) in shown:
            distance = "" if finding.distance is None else str(finding.distance)
            mark = "[green]yes[/]" if finding.right else "[red]no[/]"
            table.add_row(finding.label, finding.found or "nothing within the radius", distance, mark)
    if len(findings) > len(shown):
        table.caption = f"{len(findings) - len(shown)} more right ones are not shown"
    return table


def _verdict(console: Console, findings: Sequence[Finding]) -> bool:
    right = sum(finding.right for finding in findings)
    times = sorted(finding.took_ms for finding in findings)
    console.print(
        f"[bold]{right} of {len(findings)} searches found the right product[/]; a whole request took "
        f"{statistics.median(times):.1f} ms (median), {times[int(0.95 * (len(times) - 1))]:.1f} ms (95 %)."
    )
    good = right >= _SHARE_EXPECTED * len(findings)
    if not good:
        console.print(f"[bold red]Fewer than {_SHARE_EXPECTED:.0%} were right: something is wrong with this setup.[/]")
    return good


def _invite(console: Console, url: str, pictures: Path) -> None:
    picture = shlex.quote(str(pictures / "polar-cola.jpg"))
    lines = [
        f"The service stays up at [bold]{url}[/]",
        f"  API documentation  {url}/docs",
        f"  health             {url}/health",
        f"  drawn pictures     {pictures}",
        "",
        f"  curl -F image=@{picture} -F top_k=3 {url}/search",
        "",
        "Ctrl-C stops it and deletes its temporary folder.",
    ]
    # A long line must stay whole so that it can be copied.
    console.print(Frame("\n".join(lines), expand=False), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
