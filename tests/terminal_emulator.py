"""A terminal that is emulated, for tests that look at the screen."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable

import pyte

ROWS = 30


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, columns: int, program: Callable[[], object]) -> None:
        """Start it.

        Args:
            columns: Width of the terminal.
            program: Called in a copy of this process, whose outputs are the terminal; it does not return.
        """
        self.screen = pyte.HistoryScreen(columns, ROWS, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
            time.sleep(0.2)  # until the terminal has its size
            program()
            os._exit(70)
        self._set_size(columns)

    def _set_size(self, columns: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))

    def resize(self, columns: int) -> None:
        """As a user does with the mouse."""
        self.screen.resize(ROWS, columns)
        self._set_size(columns)
        os.kill(self._pid, signal.SIGWINCH)

    def send(self, signal_number: int) -> None:
        """Send a signal to the program."""
        os.kill(self._pid, signal_number)

    def press(self, key: str) -> None:
        """Type a key, or a sequence that a key sends."""
        os.write(self._descriptor, key.encode())

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, and passes it line by line."""
        flags = termios.tcgetattr(self._descriptor)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The same, and what has left the screen upwards."""
        left = ["".join(line[column].data for column in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join([*(line.rstrip() for line in left), *self.lines])

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until the screen shows something."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.text
            assert self._read(), self.text

    def wait(self) -> int:
        """Wait until the program ends; returns its exit status.

        Processes that it leaves behind, such as Ray's after a kill, may hold the terminal open for half a minute more.
        """
        ended = 0
        while not ended:
            self._read()
            ended, status = os.waitpid(self._pid, os.WNOHANG)
        while select.select([self._descriptor], [], [], 0.1)[0] and self._read():
            pass
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        if select.select([self._descriptor], [], [], 0.1)[0]:
            try:
                self._stream.feed(os.read(self._descriptor, 65536))
            except OSError:  # the program has ended
                return False
        return True
