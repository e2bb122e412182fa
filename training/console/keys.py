"""Reads single keys from the terminal while a command runs."""

import os
import re
import select
import termios
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

SECONDS_BETWEEN_LOOKS = 0.2
KEYBOARD = 0
"""The descriptor of standard input."""
UP, DOWN = "up", "down"
_ARROWS = {"\x1b[A": UP, "\x1b[B": DOWN, "\x1bOA": UP, "\x1bOB": DOWN}
_KEY = re.compile(r"\x1b[\[O][0-?]*[ -/]*[@-~]|\x1b?[^\x1b]|\x1b")
"""What a terminal sends for a key: a control sequence (ECMA-48, 5.4), or a character, after an escape with Alt."""


class Keys:
    """Passes each key to a function, in a thread, until the block ends.

    The terminal then passes keys one by one and does not show them, but Ctrl-C and Ctrl-Z do what they always do. While
    the command is in the background, it reads nothing, because the system would halt it.
    """

    def __init__(self, on_key: Callable[[str], None]) -> None:
        """Prepare to read.

        Args:
            on_key: Gets each of `keys_in`.
        """
        self._on_key = on_key
        self._ended = threading.Event()
        self._before = termios.tcgetattr(KEYBOARD)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        _reading.append(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Read no more, and let the terminal show what is typed."""
        self._ended.set()
        self._thread.join()
        self.restore()
        _reading.remove(self)

    def restore(self) -> None:
        """Let the terminal show what is typed, as before."""
        self._ended.set()
        if self._is_in_foreground():
            termios.tcsetattr(KEYBOARD, termios.TCSANOW, self._before)

    def _read(self) -> None:
        while not self._ended.is_set():
            if not self._is_in_foreground():
                self._ended.wait(SECONDS_BETWEEN_LOOKS)
                continue
            if termios.tcgetattr(KEYBOARD)[3] & termios.ICANON:  # also after Ctrl-Z and fg
                tty.setcbreak(KEYBOARD, termios.TCSANOW)
            if select.select([KEYBOARD], [], [], SECONDS_BETWEEN_LOOKS)[0]:
                typed = os.read(KEYBOARD, 100)
                if not typed:
                    return
                for key in keys_in(typed.decode(errors="ignore")):
                    self._on_key(key)

    def _is_in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(KEYBOARD) == os.getpgrp()
        except OSError:  # the terminal has gone
            return False


def keys_in(typed: str) -> list[str]:
    """The keys in what a terminal has sent at once: characters, `up`, `down`, or the sequences of other keys."""
    return [_ARROWS.get(key, key) for key in _KEY.findall(typed)]


_reading: list[Keys] = []
"""What reads keys now."""


def restore_terminal() -> None:
    """Let the terminal show what is typed, as before: for a process that ends without leaving its blocks."""
    for keys in _reading:
        keys.restore()


def can_read_keys() -> bool:
    """Whether standard input is the terminal of this process, and the process is in the foreground."""
    try:
        return os.isatty(KEYBOARD) and os.tcgetpgrp(KEYBOARD) == os.getpgrp()
    except OSError:  # it is closed, or another terminal
        return False
