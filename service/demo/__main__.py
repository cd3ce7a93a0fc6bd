"""``python -m service.demo``: draw packs, enrol them in a real service, search them again, print what was found."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.demo.gallery import Photo, gallery_photos, held_out_photo
from service.demo.packs import packs
from service.demo.report import annotate, findings_table, invite, sum_up
from service.demo.server import ServiceFailed, ServiceProcess
from service.demo.shelf import ShelfPhoto, sample_boards, shelf_photo
from service.demo.tour import enrol, find_on_shelf, search
from service.images import encode_jpeg


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code: 0 when it went well, 1 when not, 130 when interrupted early."""
    options = _parser().parse_args(arguments)
    stop_at_once = options.exit or os.environ.get("DEMO_EXIT", "") not in ("", "0")
    console = Console(highlight=False)
    try:
        scratch = tempfile.TemporaryDirectory(prefix="shitu-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        _complain(console, f"no temporary folder could be made: {error}. Name a writable one in TMPDIR.")
        return 1
    with _ends_as_interrupts(), scratch as folder:
        try:
            return _demonstrate(console, Path(folder), stop_at_once, options.picture)
        except KeyboardInterrupt:
            console.print("\nInterrupted; the service is stopped and its temporary folder deleted.")
            return 130
        except ServiceFailed as error:
            _complain(console, str(error))
        except httpx.TransportError as error:
            _complain(console, f"the service stopped answering ({type(error).__name__}: {error})")
        except OSError as error:
            _complain(console, f"{error} (its temporary folder was {folder})")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.demo", description=__doc__)
    parser.add_argument(
        "--exit", action="store_true", help="stop the service at the end instead of leaving it up (also DEMO_EXIT=1)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="save the shelf photo with what was found on it")
    return parser


def _complain(console: Console, text: str) -> None:
    console.print("[bold red]The demo failed:[/]", end=" ")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _ends_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does, so that no service is left behind."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _demonstrate(console: Console, folder: Path, stop_at_once: bool, picture: Path | None) -> int:
    console.rule("[bold]shitu-hash demo")
    with (
        ServiceProcess(folder / "data", folder / "service.log") as service,
        httpx.Client(base_url=service.url, timeout=60.0, trust_env=False) as client,
    ):
        console.print("Starting the service, and drawing the sample gallery while it loads its models.")
        pictures = _draw(console, folder / "pictures", service)
        with console.status("waiting for the service to load its models"):
            service.wait_until_ready()
        console.print(f"The service is ready at {service.url}")
        good = _enrol_and_search(console, client, pictures, picture)
        if stop_at_once:
            code = service.stop()
            if code != 0:
                raise ServiceFailed(f"the service did not stop cleanly (exit code {code}).\n{service.log_end()}")
            console.print("The service is stopped and its temporary folder deleted.")
            return 0 if good else 1
        invite(console, service.url, folder / "pictures", pictures.example)
        try:
            code = service.wait()
        except KeyboardInterrupt:
            service.stop()
            console.print("\nThe service is stopped and its temporary folder deleted.")
            return 0 if good else 1
        raise ServiceFailed(f"the service ended by itself with exit code {code}.\n{service.log_end()}")


@dataclass(frozen=True)
class _Pictures:
    """What is enrolled, what is searched (single packs, the cut shelf photo), and a file to search with."""

    gallery: list[Photo]
    held_out: list[Photo]
    shelf: ShelfPhoto
    example: Path

    @property
    def on_shelf(self) -> list[Photo]:
        """The packs cut out of the shelf photo."""
        return [Photo(label, self.shelf.crop(index)) for index, label in enumerate(self.shelf.labels)]


def _draw(console: Console, folder: Path, service: ServiceProcess) -> _Pictures:
    """Draw everything, unless the service ends meanwhile; what is searched is left as JPEG files in ``folder``."""
    products = packs()
    gallery: list[Photo] = []
    held_out: list[Photo] = []
    folder.mkdir()
    with _progress(console) as bar:
        for product in bar.track(products, description="drawing packs"):
            service.check()
            gallery += gallery_photos(product)
            held_out.append(held_out_photo(product))
    files = [folder / f"{_file_name(photo.label)}.jpg" for photo in held_out]
    for file, photo in zip(files, held_out, strict=True):
        file.write_bytes(encode_jpeg(photo.picture))
    shelf = shelf_photo(sample_boards(products))
    (folder / "shelf.jpg").write_bytes(encode_jpeg(shelf.picture))
    return _Pictures(gallery, held_out, shelf, files[0])


def _file_name(label: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


def _enrol_and_search(console: Console, client: httpx.Client, pictures: _Pictures, picture: Path | None) -> bool:
    """Print what a running service makes of the pictures; returns whether enough answers were right."""
    singles, on_shelf = len(pictures.held_out), len(pictures.shelf.labels)
    bits = client.get("/index").raise_for_status().json()["bits"]
    radius = bits // 3  # wide: everything searched is in the gallery, so nothing unknown has to be kept out
    with _progress(console) as bar:
        started = time.perf_counter()
        enrolling = bar.add_task("enrolling", total=len(pictures.gallery))
        stored = enrol(client, pictures.gallery, lambda done: bar.update(enrolling, completed=done))
        rate = stored / (time.perf_counter() - started)
        searching = bar.add_task("searching", total=singles + on_shelf)
        single = search(client, pictures.held_out, radius, lambda done: bar.update(searching, completed=done))
        cut = search(client, pictures.on_shelf, radius, lambda done: bar.update(searching, completed=singles + done))
    console.print(
        f"Enrolled {stored} pictures of {singles} products through POST /gallery/batch, {rate:.0f} a second, "
        f"each as a code of {bits} bits ({bits // 8} bytes). Searched with hamming_radius={radius}."
    )
    console.print(findings_table("Held-out photos: another angle, light and background", single))
    console.print(findings_table("The shelf photo, cut into its packs", cut))
    if client.get("/health").raise_for_status().json()["detector"] is not None:
        detected = find_on_shelf(client, pictures.shelf, radius)
        console.print(findings_table("The shelf photo as it is, its packs found by the detector", detected))
    if picture is not None:
        picture.write_bytes(encode_jpeg(annotate(pictures.shelf, cut)))
        console.print(f"Saved the shelf photo with what was found to {picture}")
    return sum_up(console, single + cut)


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


if __name__ == "__main__":
    sys.exit(main())
