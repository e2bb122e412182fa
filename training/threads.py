"""Limits the threads of mathematical libraries, so that trials side by side do not take each other's cores."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Environment variables by which mathematical libraries learn, when they are loaded, how many threads to use."""


def use_threads(number: int) -> None:
    """Let torch, and what is loaded of BLAS and OpenMP, compute with this number of threads."""
    torch.set_num_threads(number)
    threadpool_limits(number)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread for a moment; of BLAS and OpenMP, what was loaded when this was first called."""
    torch_threads = torch.get_num_threads()
    with _loaded_libraries().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)


@cache
def _loaded_libraries() -> ThreadpoolController:
    return ThreadpoolController()  # it looks through all libraries of the process, which takes 3 ms


@contextmanager
def restored_threads() -> Iterator[None]:
    """Give torch, BLAS and OpenMP the numbers of threads back that they had before."""
    torch_threads = torch.get_num_threads()
    before = {library.user_api: library.get_num_threads() for library in ThreadpoolController().lib_controllers}
    try:
        yield
    finally:
        for library in ThreadpoolController().lib_controllers:  # also those that were loaded meanwhile
            if library.user_api in before:
                library.set_num_threads(before[library.user_api])
        torch.set_num_threads(torch_threads)
