"""Runs a program, and ends all its processes when the one that asked for it closes our standard input or dies.

It is run as a script of its own, and imports nothing but the standard library:

    python -I -S supervisor.py GRACE_SECONDS OUT OUT_FILE ERR ERR_FILE PROGRAM [ARGUMENT ...]

OUT and ERR are the descriptors at which the outputs of the program can be read. If the process that reads them dies,
what it has not read is added to the files, which are descriptors, too.

Ray kills the children of a worker that it ends, but not their children. So this process only waits for a second one,
which supervises. To that one, Linux gives the processes of the program whose parents have ended, in whatever sessions
they are, so that it finds all of them.
"""

import ctypes
import fcntl
import os
import select
import signal
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

CANNOT_START = 127
"""Exit status if the program cannot be started, as in shells."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILL_INTERVAL = 0.1
"""Seconds between two SIGKILLs to all processes, which may have started others meanwhile."""


def main(grace_seconds: float, outputs: dict[int, int], command: list[str]) -> NoReturn:
    """Run a program; exits with its status, or with 128 and the number of the signal that ended it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for descriptor in (*outputs, *outputs.values()):
        os.set_inheritable(descriptor, False)
    supervisor = os.fork()
    if supervisor == 0:
        status = _Supervisor(command, grace_seconds, outputs).run()
    else:
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


class _Supervisor:
    def __init__(self, command: list[str], grace_seconds: float, outputs: dict[int, int]) -> None:
        """Start the program in a session of its own."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._grace_seconds = grace_seconds
        self._outputs = outputs
        self._reader_lives = False
        """Whether the process that reads the outputs has said so before it closed our input."""
        self._deadline: float | None = None
        """When the processes that are left are killed; None until they are asked to end."""
        self._status: int | None = None
        self._woken, wakes = os.pipe()
        os.set_blocking(wakes, False)
        self._inputs = [0, self._woken]
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
        while self._reap():
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._signal_all(signal.SIGKILL)
                self._wait(KILL_INTERVAL)
            else:
                self._wait(None if self._deadline is None else max(0.0, self._deadline - time.monotonic()))
        while 0 in self._inputs and any(map(_unread, self._outputs)):  # the reader may still die
            self._wait(KILL_INTERVAL)
        if self._keeps_outputs:
            for descriptor in self._outputs:
                while _unread(descriptor):
                    self._keep(descriptor)
        self._signal_group(signal.SIGKILL)  # where the system does not say which processes are ours
        assert self._status is not None, "the program was a child"
        return self._status

    def _wait(self, seconds: float | None) -> None:
        """Wait for the end of a process, or for our input, or for so many seconds."""
        ready, _, _ = select.select(self._inputs, [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, 4096)
        for descriptor in self._outputs.keys() & ready:
            self._keep(descriptor)
        if 0 in ready and os.read(0, 4096):
            self._reader_lives = True
        elif 0 in ready:
            self._inputs.remove(0)
            if self._keeps_outputs:
                self._inputs += self._outputs
            self._start_grace()
            self._signal_group(signal.SIGTERM)  # it tells its other processes, as it does on Ctrl-C

    @property
    def _keeps_outputs(self) -> bool:
        """Whether the one that read the outputs is dead: it did not say that it only asks for the end."""
        return 0 not in self._inputs and not self._reader_lives

    def _keep(self, descriptor: int) -> None:
        """Add what can be read to the file of an output."""
        content = os.read(descriptor, 1 << 16)
        if not content and descriptor in self._inputs:
            self._inputs.remove(descriptor)
        with suppress(OSError):
            os.write(self._outputs[descriptor], content)

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


def _unread(descriptor: int) -> int:
    """How many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4), sys.byteorder)


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
    out, out_file, err, err_file = map(int, sys.argv[2:6])
    main(float(sys.argv[1]), {out: out_file, err: err_file}, sys.argv[6:])
