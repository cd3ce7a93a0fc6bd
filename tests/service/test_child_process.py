"""Work in a process of its own: its results, its errors, its crashes, its noise."""

from __future__ import annotations

import os
import signal
import time

import pytest

from service.child_process import ChildFailed, run_in_child


def work(what: str) -> int:
    os.write(1, b"noise\n")
    os.write(2, b"noise\n")
    if what == "fail":
        raise KeyError(what)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(3)
    if what == "hang":
        time.sleep(600)
    return os.getpid()


def test_what_it_returns_and_raises_comes_back_without_its_noise(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_in_child(60, work, "nothing") != os.getpid()
    with pytest.raises(KeyError, match="fail"):
        run_in_child(60, work, what="fail")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("what", "timeout_s", "said"),
    [
        ("crash", 60, r"crashed \(SIGSEGV\)"),
        ("exit", 60, r"crashed \(exit code 3\)"),
        ("hang", 1, "not done within 1 s"),
    ],
)
def test_a_process_without_a_result_is_told_and_gone(what: str, timeout_s: float, said: str) -> None:
    with pytest.raises(ChildFailed, match=said):
        run_in_child(timeout_s, work, what)
