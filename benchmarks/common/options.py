"""The command line that every benchmark has, and where the evaluation data lies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the option that all benchmarks share."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return arguments


def add_hasher(arguments: argparse.ArgumentParser) -> None:
    """Add ``--hasher``, the hash model to measure."""
    arguments.add_argument("--hasher", type=Path, help="folder of the hash model (default: the bundled starter)")


def add_detector(arguments: argparse.ArgumentParser) -> None:
    """Add ``--detector``, the main-body detector to measure."""
    arguments.add_argument("--detector", type=Path, help="folder of the detector (default: the bundled starter)")


def add_shared(arguments: argparse.ArgumentParser) -> None:
    """Add ``--shared``, the folder of the evaluation data."""
    arguments.add_argument(
        "--shared", type=Path, help="folder that holds data/ (default: ../shared beside the repository)"
    )


def shared_data(options: argparse.Namespace, *needed: str) -> Path:
    """The data folder of ``--shared``.

    Ends the script when something in ``needed`` is missing: with exit code 2 when the folder was named, and with 0
    when it was not, so that ``make bench`` goes on with the benchmarks that need no data.
    """
    folder = (options.shared or ROOT.parent / "shared") / "data"
    missing = [name for name in needed if not (folder / name).exists()]
    if not missing:
        return folder
    print(
        f"Skipped: {folder} has no {', '.join(missing)}. The evaluation data is not part of the repository; "
        "name the folder that holds data/ with --shared.",
        file=sys.stderr,
    )
    raise SystemExit(2 if options.shared else 0)
