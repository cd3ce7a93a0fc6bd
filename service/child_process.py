"""Work in a process of its own: a library that crashes or hangs there ends nothing but its own work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar, cast

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class ChildFailed(Exception):
    """The process gave no result. The text says why: it crashed, or it took too long."""


def run_in_child(
    timeout_s: float, function: Callable[Parameters, Result], *args: Parameters.args, **options: Parameters.kwargs
) -> Result:
    """Call a function in a fresh process, which writes nothing to standard output and error and is gone afterwards.

    Args:
        timeout_s: for its start and its work.
        function: of a module; it, its arguments and what it returns or raises can be pickled.
        args: of the function.
        options: of the function.

    Returns:
        What the function returns.

    Raises:
        ChildFailed: it crashed or was not done in time; otherwise whatever the function raises.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, args, options), daemon=True)
    try:
        process.start()
        sender.close()
        if not receiver.poll(timeout_s):
            raise ChildFailed(f"was not done within {timeout_s:.0f} s")
        succeeded, outcome = receiver.recv()
    except EOFError as error:
        process.join()
        raise ChildFailed(f"crashed ({_cause(process.exitcode)})") from error
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        receiver.close()
    if not succeeded:
        raise outcome
    return cast(Result, outcome)


def _work(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nothing, descriptor)
    try:
        outcome = (True, function(*args, **options))
    except Exception as error:
        outcome = (False, error)
    sender.send(outcome)


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
