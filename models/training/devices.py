"""Where the training runs: one process on one device, or one of several started together.

``python -m paddle.distributed.launch`` starts one process a device and tells each its rank; on CPUs with
``--backend gloo``. Gradients are averaged over the processes, so that together they take the step that one process
with the sum of their batches would take, as long as the loss is a mean over pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle import distributed
from paddle.base import core

from .config import ConfigError


@dataclass(frozen=True)
class Devices:
    """This process among those that train together: ``rank`` of ``world``, on ``device``."""

    device: str
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files, evaluates and talks."""
        return self.rank == 0

    def parallel(self, model: paddle.nn.Layer) -> paddle.nn.Layer:
        """Wrap a network so that its gradients are averaged over the processes."""
        return paddle.DataParallel(model) if self.world > 1 else model

    def mean(self, values: Sequence[float]) -> list[float]:
        """Average numbers over the processes; all of them must call this, with equally many numbers."""
        if self.world == 1:
            return list(values)
        total = paddle.to_tensor(values, dtype="float64")
        distributed.all_reduce(total)
        return [float(value) for value in (total / self.world).numpy()]

    def wait(self) -> None:
        """Let all processes come to this point."""
        if self.world > 1:
            distributed.barrier()


def start_devices(wanted: str) -> Devices:
    """Choose the device, and join the other processes if there are any.

    Args:
        wanted: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        ConfigError: a GPU is wanted and this Paddle or this machine has none.
    """
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if wanted == "gpu" and not gpus:
        raise ConfigError(
            "Global.device is gpu, and Paddle sees none: install paddlepaddle-gpu for your CUDA version, "
            "or train with -o Global.device=cpu"
        )
    environment = distributed.ParallelEnv()
    on_gpu = gpus > 0 and wanted != "cpu"
    paddle.set_device(f"gpu:{environment.device_id}" if on_gpu else "cpu")
    if environment.world_size > 1:
        distributed.init_parallel_env()
    # Sums come out differently with another number of threads, and a model that was loaded in this process may have
    # changed it: a training has to give the same bits again.
    core.set_num_threads(cpu_threads())
    # Asked again, because processes that talk through gloo are put on the CPU.
    return Devices(paddle.get_device(), environment.rank, environment.world_size)


def cpu_threads() -> int:
    """Give the threads that this process computes with: ``OMP_NUM_THREADS``, as the user or the entry point set it."""
    # A list gives the threads of nested parallel regions, of which there are none. Paddle sets 1 where it is unset.
    first = os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0]
    return max(1, int(first)) if first.isdecimal() else 1
