"""Runs a program, and ends all its processes when the one that asked for it closes our standard input or dies.

It is run as a script of its own, and imports nothing but the standard library:

    python -I -S supervisor.py GRACE_SECONDS PROGRAM [ARGUMENT ...]

Ray kills the children of a worker that it ends, but not their children. So this process only waits for a second one,
which supervises. To that one, Linux gives the processes of the program whose parents have ended, in whatever sessions
they are, so that it finds all of them.
"""

import ctypes
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

CANNOT_START = 127
"""Exit status if the program cannot be started, as in shells."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILL_INTERVAL = 0.1
"""Seconds between two SIGKILLs to all processes, which may have started others meanwhile."""


def main(grace_seconds: float, command: list[str]) -> NoReturn:
    """Run a program; exits with its status, or with 128 and the number of the signal that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    supervisor = os.fork()
    if supervisor == 0:
        status = _Supervisor(command, grace_seconds).run()
    else:
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


class _Supervisor:
    def __init__(self, command: list[str], grace_seconds: float) -> None:
        """Start the program in a session of its own."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._grace_seconds = grace_seconds
        self._deadline: float | None = None
        """When the processes that are left are killed; None until they are asked to end."""
        self._status: int | None = None
        self._woken, wakes = os.pipe()
        os.set_blocking(wakes, False)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        started, starts = os.pipe()
        self._program = os.fork()
        if self._program == 0:
            _become(command)
        os.close(starts)
        os.read(started, 1)  # ends when the program has taken its place, and so has a session and its signals
        os.close(started)
        devnull = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):  # their readers wait until all writers have ended
            os.dup2(devnull, descriptor)

    def run(self) -> int:
        """Wait until no process of the program is left; returns its exit status, or the negative signal."""
        inputs = [0, self._woken]
        while self._reap():
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._signal_all(signal.SIGKILL)
                timeout: float | None = KILL_INTERVAL
            else:
                timeout = None if self._deadline is None else self._deadline - time.monotonic()
            ready, _, _ = select.select(inputs, [], [], timeout if timeout is None else max(0.0, timeout))
            if self._woken in ready:
                os.read(self._woken, 4096)
            if 0 in ready and not os.read(0, 4096):
                inputs.remove(0)
                self._start_grace()
                self._signal_group(signal.SIGTERM)  # it tells its other processes, as it does on Ctrl-C
        self._signal_group(signal.SIGKILL)  # where the system does not say which processes are ours
        assert self._status is not None, "the program was a child"
        return self._status

    def _reap(self) -> bool:
        """Collect the processes that have ended; returns whether others are left."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._program:
                    self._status = os.waitstatus_to_exitcode(ended[1])
                    self._start_grace()
                    self._signal_all(signal.SIGTERM)
        except ChildProcessError:
            return False
        return True

    def _start_grace(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_seconds

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(OSError):
            os.killpg(self._program, number)

    def _signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the group of the program, and to its processes in other groups."""
        self._signal_group(number)
        for pid in _descendants():
            with suppress(OSError):
                os.kill(pid, number)


def _become(command: list[str]) -> NoReturn:
    """Be the program from now on, with the signals and the input that a program in the background has."""
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (
            *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD),
            *(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these two
        ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except BaseException as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
    finally:
        os._exit(CANNOT_START)


def _descendants() -> set[int]:
    """The processes below this one; none on systems without /proc."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(file.parent.name)] = int(file.read_text(errors="replace").rpartition(")")[2].split()[1])
    ours, found = {os.getpid()}, set[int]()
    while ours:
        ours = {pid for pid, parent in parents.items() if parent in ours}
        found |= ours
    return found


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
