"""What tests of several packages use: the reference data beside the project, and official graphs with parameters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILL_GRAPH = Path(__file__).parent / "models" / "fill_graph.py"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the project; the test skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("the reference data (../shared) is not here")
    return folder


@pytest.fixture(scope="session")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of an official PP-ShiTu export, by a part of its name, with deterministic parameters filled in."""
    base = tmp_path_factory.mktemp("official")

    def fill(part: str) -> Path:
        (graph,) = (shared / "data" / "official_graphs").glob(f"*{part}*/inference.pdmodel")
        target = base / graph.parent.name
        if not target.exists():
            subprocess.run([sys.executable, "-W", "ignore", FILL_GRAPH, graph, target], check=True, capture_output=True)
            for extra in graph.parent.glob("*.yml"):
                shutil.copy(extra, target)
        return target

    return fill
