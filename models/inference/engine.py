"""One exported network on Paddle Inference: which files, which device, which options."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import DeviceUnavailable, ModelInvalid, ModelNotFound

Device = Literal["auto", "cpu", "gpu"]
_STEMS = ("inference", "model")  # PaddleClas and ours; PaddleDetection
_GRAPHS = (".json", ".pdmodel")  # new IR; old IR
_GPU_MEMORY_MB = 500  # the pool at start; it grows
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFiles:
    """The two files of an export: ``graph`` (.json or .pdmodel) and ``params`` (.pdiparams)."""

    graph: Path
    params: Path

    @classmethod
    def find(cls, folder: Path | str) -> ModelFiles:
        """Find the export in a folder; the new format wins where both are there.

        Raises:
            ModelNotFound: no folder, no graph, or a graph without its parameters.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ModelNotFound(f"model folder {folder} does not exist")
        graphs = [folder / f"{stem}{suffix}" for stem in _STEMS for suffix in _GRAPHS]
        for graph in graphs:
            if graph.is_file():
                params = graph.with_suffix(".pdiparams")
                if not params.is_file():
                    raise ModelNotFound(f"{graph} has no parameters beside it: {params.name} is missing")
                return cls(graph, params)
        raise ModelNotFound(f"{folder} holds no exported model: none of {', '.join(g.name for g in graphs)}")

    @property
    def new_ir(self) -> bool:
        """Whether the graph is in Paddle's new intermediate representation (``inference.json``)."""
        return self.graph.suffix == ".json"

    def digest(self) -> bytes:
        """SHA-256 over the bytes of graph and parameters."""
        parts = (hashlib.sha256(path.read_bytes()).digest() for path in (self.graph, self.params))
        return hashlib.sha256(b"".join(parts)).digest()


@dataclass(frozen=True)
class EngineOptions:
    """What was picked: the number of the GPU or None for the CPU, CPU threads a call, and oneDNN."""

    gpu: int | None
    threads: int
    onednn: bool


class Engine:
    """A loaded network. Not thread-safe: give each thread its own :meth:`clone`."""

    def __init__(self, predictor: Any, files: ModelFiles, options: EngineOptions, description: str) -> None:
        """Wrap a predictor; use :meth:`load`."""
        self._predictor = predictor
        self._inputs = {name: predictor.get_input_handle(name) for name in predictor.get_input_names()}
        self._outputs = [predictor.get_output_handle(name) for name in predictor.get_output_names()]
        self._options = options
        self.files = files
        self.description = description

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: Device = "auto",
        *,
        gpu_number: int = 0,
        threads: int | None = None,
        onednn: bool = True,
    ) -> Engine:
        """Load the export in ``folder``.

        Args:
            folder: holds ``inference.json`` or ``inference.pdmodel`` (or the same called ``model``) and
                its ``.pdiparams``.
            device: ``auto`` takes the GPU when Paddle was built for CUDA and sees one, else the CPU.
            gpu_number: which of the visible GPUs, where it is one.
            threads: CPU threads of one call; None takes the cores this process may use.
            onednn: use oneDNN on the CPU (several times faster).

        Raises:
            ModelNotFound, ModelInvalid, DeviceUnavailable.
        """
        files = ModelFiles.find(folder)
        options = EngineOptions(gpu_number if _pick_gpu(device) else None, threads or available_cores(), onednn)
        engine = cls._create(files, options)
        log.info("loaded %s", engine.description)
        return engine

    @classmethod
    def _create(cls, files: ModelFiles, options: EngineOptions) -> Engine:
        import paddle
        from paddle import inference as paddle_inference

        if files.new_ir:
            config = paddle_inference.Config(str(files.graph.parent), files.graph.stem)
            config.enable_new_executor()
        else:
            config = paddle_inference.Config(str(files.graph), str(files.params))
        config.enable_new_ir(files.new_ir)
        config.disable_glog_info()
        config.enable_memory_optim()
        config.switch_ir_optim(True)
        if options.gpu is not None:
            config.enable_use_gpu(_GPU_MEMORY_MB, options.gpu)
            chosen = f"gpu ({paddle.device.cuda.get_device_name(options.gpu)})"
        else:
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(options.threads)
            if options.onednn:
                config.enable_mkldnn()
                config.set_mkldnn_cache_capacity(10)  # one entry a batch size; 0 or 1 thrash as batches vary
            else:
                config.disable_mkldnn()
            plural = "" if options.threads == 1 else "s"
            chosen = f"cpu ({options.threads} thread{plural}, oneDNN {'on' if options.onednn else 'off'})"
        try:
            predictor = paddle_inference.create_predictor(config)
        except Exception as error:  # Paddle raises bare RuntimeError, ValueError and its own types for torn files
            raise ModelInvalid(f"Paddle cannot load {files.graph}: {_first_line(error)}") from error
        return cls(predictor, files, options, f"{files.graph} on {chosen}, Paddle {paddle.__version__}")

    @property
    def input_names(self) -> list[str]:
        """Names of the graph's inputs, in its order."""
        return list(self._inputs)

    def clone(self) -> Engine:
        """Load the same files with the same options again, for another thread.

        Not ``Predictor.clone()``, which shares the weights: oneDNN rewrites those of an old-IR graph for itself,
        and the next predictor over them then fails (Paddle 3.2.2, the official main-body detector).
        """
        return Engine._create(self.files, self._options)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]] | Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: by name, or in the graph's order; C-contiguous arrays of the graph's dtypes.

        Returns:
            The outputs in the graph's order, owned by the caller.

        Raises:
            ModelInvalid: the graph takes other inputs or fails on these.
        """
        named = inputs if isinstance(inputs, Mapping) else dict(zip(self._inputs, inputs, strict=True))
        if named.keys() != self._inputs.keys():
            raise ModelInvalid(f"{self.files.graph} takes {sorted(self._inputs)}, not {sorted(named)}")
        try:
            for name, array in named.items():
                self._inputs[name].reshape(array.shape)
                self._inputs[name].copy_from_cpu(np.ascontiguousarray(array))
            self._predictor.run()
            return [np.asarray(output.copy_to_cpu()) for output in self._outputs]
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelInvalid(f"{self.files.graph} failed: {_first_line(error)}") from error


def available_cores() -> int:
    """Count the cores this process may use, which a container may limit below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pick_gpu(device: str) -> bool:
    import paddle

    if device not in ("auto", "cpu", "gpu"):
        raise DeviceUnavailable(f"device must be auto, cpu or gpu, not {device!r}")
    if device == "cpu":
        return False
    usable = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device == "gpu" and not usable:
        why = (
            "no CUDA device is visible"
            if paddle.is_compiled_with_cuda()
            else "this Paddle is a CPU build; install paddlepaddle-gpu"
        )
        raise DeviceUnavailable(f"device gpu was asked for, but {why}")
    return bool(usable)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "expected" in line.lower()]
    return (telling or lines or [type(error).__name__])[-1][:300]
