"""Python, the libraries and the processor."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from .findings import Check, Finding

_PYTHON = ((3, 10), (3, 13))
_TESTED_PADDLE = "3.2.2"
_INSTALL = "pip install 'shitu-hash[cpu]'"
# Distributions of which one must be there, and the module they bring; Paddle's is loaded in a process of its own.
_NEEDED = (
    (("shitu-hash",), "service"),
    (("paddlepaddle", "paddlepaddle-gpu"), None),
    (("faiss-cpu", "faiss-gpu"), "faiss"),
    (("numpy",), "numpy"),
    (("opencv-python-headless", "opencv-python"), "cv2"),
    (("fastapi",), "fastapi"),
    (("uvicorn",), "uvicorn"),
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_vpopcntdq")


def checks() -> list[Check]:
    """Give the checks of this module."""
    return [
        Check("python", _python),
        *(Check(names[0], partial(_package, names, module)) for names, module in _NEEDED),
        Check("cpu", _cpu),
        Check("faiss build", _faiss_build),
    ]


def _python() -> Iterator[Finding]:
    least, most = _PYTHON
    known = least <= sys.version_info[:2] <= most
    detail = f"{platform.python_version()} on {platform.machine()}, {platform.system()}"
    remedy = "" if known else f"use Python {least[0]}.{least[1]} to {most[0]}.{most[1]}"
    yield Finding("python", "ok" if known else "fail", detail, remedy)


def _package(names: tuple[str, ...], module: str | None) -> Iterator[Finding]:
    there = [(name, found) for name in names if (found := _version(name)) is not None]
    if not there:
        yield Finding(names[0], "fail", "is not installed", _INSTALL)
        return
    name, version = there[0]
    if len(there) > 1:
        both = " and ".join(each for each, _ in there)
        yield Finding(name, "warn", f"{both} are both installed and overwrite each other", f"uninstall one: {_INSTALL}")
    try:
        if module is not None:
            importlib.import_module(module)
    except Exception as error:  # a library that is half there can raise anything
        yield Finding(name, "fail", f"{version}, but it cannot be imported: {error}", f"install it again: {_INSTALL}")
        return
    yield _judge_paddle(name, version) if name.startswith("paddlepaddle") else Finding(name, "ok", version)


def _judge_paddle(name: str, version: str) -> Finding:
    if version == _TESTED_PADDLE:
        return Finding(name, "ok", version)
    remedy = f"pip install '{name}=={_TESTED_PADDLE}'"
    if version.startswith("3.3."):
        return Finding(name, "fail", f"{version} crashes on detectors with oneDNN", remedy)
    return Finding(name, "warn", f"{version}; this project is tested with {_TESTED_PADDLE}", remedy)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> Iterable[Finding]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = set(facts.get("flags", "").split())
    name = facts.get("model name", platform.processor() or platform.machine())
    if not flags:
        return [Finding("cpu", "skip", f"{name}: its features are not known")]
    has = ", ".join(flag for flag in _FLAGS if flag in flags)
    if "avx2" not in flags:
        return [Finding("cpu", "warn", f"{name}: no AVX2; models and search are several times slower", "another CPU")]
    means = (
        "codes are compared with vector popcounts"
        if "avx512_vpopcntdq" in flags
        else "no vector popcount: codes are compared somewhat slower"
    )
    return [Finding("cpu", "ok", f"{name}: {has}; {means}")]


def _faiss_build() -> Iterable[Finding]:
    import faiss

    options = faiss.get_compile_options().strip()
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    return [Finding("faiss build", "ok", f"{options}; {gpus} GPUs; {faiss.omp_get_max_threads()} threads")]
