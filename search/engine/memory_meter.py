"""Measures how much memory a trial takes: that of its process, of the processes that it starts, and of its GPUs."""

import ctypes
import gc
import os
import threading
from collections.abc import Iterator, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch

from search.record.trial import MemoryUse

SECONDS_BETWEEN_LOOKS = 0.5
"""How often processes that a trial has started are looked at."""
KB_PER_MB = 1000 / 1.024
"""The system counts in units of 1,024 bytes; a megabyte has a million bytes."""
_PROC = Path("/proc")


class MemoryMeter:
    """Measures the peaks of a trial's memory while its block runs.

    A worker runs many trials, so what the system and torch know of the peak is reset at the beginning. What all trials
    of a worker have, such as the libraries, belongs to each of them, and so does what an earlier one has not given
    back. Of the processes that a trial has started, those count that run at the same time; one that lasts for less
    than half a second may be missed. Without the files of Linux in `/proc`, only this process's memory of GPUs is
    measured: what torch has reserved. Of other processes it is what the driver says, with what CUDA itself takes.
    """

    def __init__(self) -> None:
        self._of_process = self._of_others = 0
        """Peaks of this process and of those that it has started, in kB; 0 where nothing is known."""
        self._gpus_of_others = 0
        """Peak of the GPUs' memory of the processes that it has started, in bytes."""
        self._is_over = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Reset the peaks, and begin to look at the processes."""
        with suppress(OSError):
            (_PROC / "self/clear_refs").write_text("5")  # the peak of the resident memory; see proc_pid_clear_refs(5)
            self._is_reset = True
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)
        self._thread = threading.Thread(target=self._look_again, daemon=True, name="memory meter")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look at nothing any more."""
        self._is_over.set()
        self._thread.join()

    _is_reset = False
    """Whether the system's peak is that of this trial; otherwise the memory is looked at from time to time."""

    def peaks(self, micro_batch_size: int | None = None) -> MemoryUse:
        """The peaks so far; `micro_batch_size` is what the training says of itself."""
        self._look()
        of_all = self._of_process + self._of_others
        return MemoryUse(
            peak_mb=round(of_all / KB_PER_MB) if self._of_process else None,
            peak_gpu_mb=round((_gpu_peak() + self._gpus_of_others) / 1e6) or None,
            micro_batch_size=micro_batch_size,
        )

    def _look_again(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        of_process = _status(os.getpid(), "VmHWM" if self._is_reset else "VmRSS")
        others = dict(_descendants(os.getpid())) if _has_children() else {}
        of_others = sum(_memory(pid, parent) for pid, parent in others.items())
        gpus_of_others = _gpu_memory(others.keys()) if others else 0
        with self._lock:
            self._of_process = max(self._of_process, of_process)
            self._of_others = max(self._of_others, of_others)
            self._gpus_of_others = max(self._gpus_of_others, gpus_of_others)


def give_back_memory() -> None:
    """Give back what an earlier trial of this worker has left in cycles of references, or free in the C library.

    A trial that raised an error or was ended in a report may leave its network like this, and Python would collect it
    when many new objects are made, which large arrays are not. What is there before the first trial is never looked at
    again, so that this takes milliseconds.
    """
    global _has_frozen  # noqa: PLW0603 (of this process)
    if not _has_frozen:
        gc.freeze()
        _has_frozen = True
        return
    gc.collect()
    with suppress(AttributeError, OSError):  # only the GNU C library has it
        ctypes.CDLL(None).malloc_trim(0)


_has_frozen = False


def _gpu_peak() -> int:
    """The largest memory that torch had reserved on all GPUs of this process, in bytes."""
    if not torch.cuda.is_initialized():
        return 0
    return sum(map(torch.cuda.max_memory_reserved, range(torch.cuda.device_count())))


def _gpu_memory(pids: Set[int]) -> int:
    """The memory that the driver of Nvidia's GPUs says processes have, in bytes; 0 where it says nothing."""
    if not (gpus := _gpus()):
        return 0
    import pynvml  # where there are GPUs

    with suppress(pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        users = [user for gpu in gpus for user in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)]
        return sum(user.usedGpuMemory or 0 for user in users if user.pid in pids)
    return 0


@cache
def _gpus() -> list[Any]:
    """The handles of the GPUs of this machine in the library of the driver; empty without that."""
    try:
        import pynvml  # only where a trial starts processes
    except ImportError:  # a node of a cluster may not have it
        return []
    with suppress(pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    return []


def _has_children() -> bool:
    """Whether this process has started another one that has not ended, by one call of the system."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants(parent: int) -> Iterator[tuple[int, int]]:
    """Each process that another one has started, with its parent, and those that these have started."""
    for child in _children(parent):
        yield child, parent
        yield from _descendants(child)


def _memory(pid: int, parent: int) -> int:
    """The memory of a process in kB.

    A process that runs its parent's program is a copy of it, and shares memory with it: only what it has for itself
    counts. Of another program, the peak counts.
    """
    is_copy = _read(pid, "cmdline") == _read(parent, "cmdline")
    return _own_memory(pid) if is_copy else _status(pid, "VmHWM")


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        texts = [(thread / "children").read_text() for thread in (_PROC / str(pid) / "task").iterdir()]
        return [int(word) for text in texts for word in text.split()]
    return []


def _own_memory(pid: int) -> int:
    """The memory in kB that a process shares with no other one."""
    sizes = _read(pid, "smaps_rollup")
    return _field(sizes, "Private_Clean") + _field(sizes, "Private_Dirty")


def _status(pid: int, name: str) -> int:
    return _field(_read(pid, "status"), name)


def _read(pid: int, file: str) -> str:
    with suppress(OSError):  # it has ended
        return (_PROC / str(pid) / file).read_text()
    return ""


def _field(text: str, name: str) -> int:
    """The number behind a name in a file of the system; 0 if it is missing."""
    _, found, rest = text.partition(f"{name}:")
    return int(rest.split(maxsplit=1)[0]) if found else 0
