"""The arrows between the packages, and the names they export."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FORBIDDEN = {
    # Folder: what nothing in it may import, wherever in the file.
    "index_store": ("service", "models"),
    "models/hub": (
        "service",
        "index_store",
        "models.inference",
        "models.training",
        "models.nets",
        "models.losses",
        "paddle",
    ),
    "models/inference": (
        "service",
        "index_store",
        "models.hub",
        "models.training",
        "models.nets",
        "models.losses",
        "models.train",
        "models.eval",
        "models.export",
        "models.binarize",
    ),
    "models/nets": ("service", "index_store", "models.training", "models.hub"),
    "models/losses": ("service", "index_store", "models.training", "models.inference", "models.hub"),
    "models/training": ("service", "index_store"),
    "service": (
        "models.training",
        "models.nets",
        "models.losses",
        "models.train",
        "models.eval",
        "models.export",
        "models.binarize",
        "matplotlib",
    ),
}
NOT_LOADED = ("models.training", "models.nets", "models.losses", "models.train", "models.export", "matplotlib")
EXPORTS = {
    "index_store": {
        *("GalleryStore", "IndexStats", "Item", "Match", "Page", "SearchResult", "open_gallery"),
        *("ForeignGallery", "read_paddleclas", "write_paddleclas"),
        *("BackupInfo", "check_backup", "restore_gallery"),
    },
    "models.hub": {"CATALOGUE", "HubError", "PullRequest", "pull"},
    "models.inference": {"Detector", "Hasher", "ModelError", "pack_bits"},
    "service.app": {"create_app"},
    "service.settings": {"Settings"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, relative ones spelled out."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_point_one_way(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imports(path)
        if any(lies_in(module, package) for package in FORBIDDEN[folder])
    ]
    assert wrong == []


def test_the_check_sees_relative_and_local_imports(tmp_path: Path) -> None:
    path = ROOT / "service" / "routes" / "search.py"
    assert {"service.runtime", "index_store", "service.routes.common"} <= set(imports(path))


@pytest.mark.parametrize(
    "module", ["service", "service.app", "service.cli", "index_store", "models.hub", "models.inference"]
)
def test_importing_loads_no_training_code(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {NOT_LOADED!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["service.app", "index_store", "models.hub", "models.inference"])
def test_importing_does_not_load_paddle(module: str) -> None:
    """Paddle takes seconds and sets signal handlers; it comes with the first model."""
    script = f"import sys, {module}; print('paddle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", EXPORTS)
def test_exported_names_are_there(module: str) -> None:
    loaded = importlib.import_module(module)
    assert {name for name in EXPORTS[module] if not hasattr(loaded, name)} == set()
    exported = set(getattr(loaded, "__all__", EXPORTS[module]))
    assert EXPORTS[module] <= exported
    assert all(hasattr(loaded, name) for name in exported)


def test_no_module_is_called_utils() -> None:
    folders = ("service", "models", "index_store")
    assert [path for folder in folders for path in (ROOT / folder).rglob("*util*.py")] == []
