"""The folder of an exported model, replaced in one step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``target`` at the end, unless something is raised.

    What else lies in ``target``, such as a model card, stays.

    Raises:
        OSError: the target cannot be written, or is no folder.
    """
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; the export is a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        yield folder
        written = {path.name for path in folder.iterdir()}
        for path in target.glob("*"):
            if path.name not in written:
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)
        if target.exists():
            target.rename(Path(temporary) / "replaced")
        folder.rename(target)
