"""Runs a program of the user's own as the training of a trial: it prints the metrics of each epoch."""

import os
import signal
import sys
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.engine.program import Line, OutOfTimeError, Program, kept_lines
from search.engine.report_lines import EPOCH, ReportLines, without_colours
from search.engine.reporter import LimitReachedError, Report, Reporter
from search.engine.trial_folder import in_trial_folder
from search.record.trial import Objective
from search.task.command_template import LIMIT, CommandTemplate
from training.atomic_file import write_atomically
from training.checkpoint import Checkpoint
from training.console.terminal import shorten
from training.micro_batch import says_out_of_memory
from training.threads import THREAD_VARIABLES

HOLD_SECONDS = 2.0
"""How long after its last report a program may end and count as one that nothing could have stopped."""
LAST_LINES = 30
"""Lines of a program's output that explain why it failed."""


class ProgramError(Exception):
    """A program has failed."""

    def __init__(self, sentence: str, output: str, *, is_timeout: bool = False, is_out_of_memory: bool = False) -> None:
        """Keep what explains the failure.

        Args:
            sentence: What happened.
            output: The last lines that the program has printed.
            is_timeout: Whether it took too long.
            is_out_of_memory: Whether its output says that the memory did not suffice.
        """
        super().__init__(sentence)
        self.output = output
        self.is_timeout = is_timeout
        self.is_out_of_memory = is_out_of_memory


def train_by_command(
    command: str,
    hyperparameters: Mapping[str, Any],
    *,
    pattern: str | None,
    epochs: int | None,
    seed: int,
    threads: int,
    timeout: float | None,
    objective: Objective,
    checkpoint: Checkpoint,
    report: Report,
) -> None:
    """Run a program until it ends; report the metrics of each epoch, and print its output into the log of the trial.

    Args:
        command: The program and its arguments, with `{name}` for values.
        hyperparameters: Searched and fixed ones.
        pattern: Regular expression that finds the metrics in a line; None where the program prints JSON objects.
        epochs: The largest number of epochs; None if there is none. Without `{epochs}` in the command, the program is
            ended after it.
        seed: Seed of the trial.
        threads: Threads that the program uses.
        timeout: Seconds that it may take; None for any number.
        objective: What is searched for.
        checkpoint: `{checkpoint}` is a folder beside its file. After an interruption the program may begin with a later
            epoch, if it names its epochs.
        report: Receives the metrics of each epoch; what it raises ends the program.

    Raises:
        ProgramError: The program has failed, took too long or has reported nothing.
        TrainingDivergedError: The metric is not finite.
        ValueError: The program reports something else than a number.
    """
    template = CommandTemplate(command)
    limit = {} if epochs is None else {LIMIT: epochs}
    words = template.fill({**limit, "seed": seed, **_folders(template, checkpoint), **hyperparameters})
    _report_unreported(checkpoint, Reporter(objective, checkpoint, limit=epochs, report=report), pattern)
    reporter = Reporter(objective, checkpoint, limit=epochs, report=report)
    reporter.ends_at_limit = LIMIT not in template.names
    lines, output = ReportLines(objective.metric, pattern), _Output()
    with (
        in_trial_folder(checkpoint.folder),
        Program(words, program_environment(threads), output.write, checkpoint.file) as program,
    ):
        try:
            status = _report_all(program, timeout, lines, reporter, _EpochNumbers(checkpoint))
        except LimitReachedError:
            status = 0
        except OutOfTimeError:
            raise ProgramError("took longer than trial_timeout", output.last_lines, is_timeout=True) from None
    if status != 0:
        sentence, lines_left = f"the program {_ending(status)}: {output.last_line}", output.last_lines
        raise ProgramError(sentence, lines_left, is_out_of_memory=says_out_of_memory(lines_left))
    if checkpoint.epochs_reported == 0:
        sentence = f"the program ended without a report of {objective.metric}: {lines.describe_unreported()}"
        raise ProgramError(f"{sentence}; its output ends with: {output.last_line}", output.last_lines)
    if reporter.epochs > 0:  # it may have nothing left to do after an interruption
        reporter.check_end()


def _folders(template: CommandTemplate, checkpoint: Checkpoint) -> dict[str, Path]:
    """The folders of the trial that a command can name; that of its checkpoint is made if it does."""
    folder = checkpoint.file.with_suffix("")
    if "checkpoint" in template.names:
        folder.mkdir(parents=True, exist_ok=True)
    return {"checkpoint": folder, "trial_folder": checkpoint.folder}


def _report_all(
    program: Program, timeout: float | None, lines: ReportLines, reporter: Reporter, numbers: "_EpochNumbers"
) -> int:
    """Report what a program prints until it ends; returns its exit status."""
    held = _HeldReport(reporter)
    for line in program.lines(timeout):
        held.release_when_due()
        if line and (metrics := lines.read(line.text, is_error_output=line.is_error_output)) is not None:
            held.release()
            if EPOCH in metrics:
                numbers.note(metrics.pop(EPOCH))
                reporter(metrics)
            else:
                held.hold(metrics)
    held.release(is_last=program.status == 0)
    return program.status


def _report_unreported(checkpoint: Checkpoint, reporter: Reporter, pattern: str | None) -> None:
    """Report the epochs that a program has printed before an interruption, and that are not recorded.

    A program does not wait until an epoch is recorded, so its checkpoint may be newer than the record. It must name its
    epochs.
    """
    lines, numbers = ReportLines(reporter.metric, pattern), _EpochNumbers(checkpoint)
    recorded = numbers.recorded()
    with suppress(LimitReachedError):
        for line in kept_lines(checkpoint.file):
            metrics = lines.read(line.text, is_error_output=line.is_error_output) or {}
            epoch = metrics.pop(EPOCH, None)
            if isinstance(epoch, int | float) and epoch not in recorded:
                numbers.note(epoch)
                reporter(metrics)
    checkpoint.epochs_restored = 0


def program_environment(threads: int) -> dict[str, str]:
    """The environment of a program: that of this worker, without what is there for Ray."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    return own | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONUNBUFFERED": "1"}


class _Output:
    """What a program prints: goes on into the log, and its last lines are kept."""

    def __init__(self) -> None:
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def write(self, line: Line) -> None:
        """Print a line."""
        sys.stdout.write(line.text)
        if line.text.strip():
            self._last.append(without_colours(line.text.rstrip()))

    @property
    def last_lines(self) -> str:
        """The last lines that are not empty."""
        return "\n".join(self._last)

    @property
    def last_line(self) -> str:
        """The last line with a word."""
        worded = (line for line in reversed(self._last) if any(map(str.isalpha, line)))
        return shorten(next(worded, "nothing"), 300)


class _HeldReport:
    """Holds a report for a moment: a program that ends meanwhile has ended by itself, and nothing stops it any more.

    Many programs report one result, without an epoch, and then save something.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._metrics: dict[str, Any] | None = None
        self._since = 0.0

    def hold(self, metrics: dict[str, Any]) -> None:
        """Hold a report until its time is up."""
        self._metrics, self._since = metrics, time.monotonic()

    def release_when_due(self) -> None:
        """Pass the report on if it was held for long enough."""
        if time.monotonic() >= self._since + HOLD_SECONDS:
            self.release()

    def release(self, *, is_last: bool = False) -> None:
        """Pass the report on, if there is one; `is_last` says that the program has ended by itself."""
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            self._reporter(metrics, is_last=is_last)


class _EpochNumbers:
    """Numbers the reports of a trial from 1, however the program counts, also after an interruption.

    A file has the program's own number of each epoch that it has reported. A program that goes on from a checkpoint
    begins with a later one, and so it is known where it stands.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._file = checkpoint.file.with_suffix(".epochs")
        self._named: list[float] | None = None
        """The program's numbers, of the epochs before the next report; None before the first one."""

    def recorded(self) -> list[float]:
        """The program's numbers of the recorded epochs."""
        named = list(map(float, self._file.read_text().split())) if self._file.is_file() else []
        return named[: self._checkpoint.epochs_reported]  # the process may have died before it reported the last

    def note(self, epoch: object) -> None:
        """Note how the program numbers the epoch that it reports now."""
        if not isinstance(epoch, int | float):
            return
        if self._named is None:
            recorded = self.recorded()
            self._named = recorded[: bisect_left(recorded, epoch)]
            self._checkpoint.epochs_restored = len(self._named)
        self._named.append(epoch)
        with suppress(OSError):  # it is needed only after an interruption
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, "\n".join(map(str, self._named)))


def _ending(status: int) -> str:
    with suppress(ValueError):  # no signal has this number
        if status > 128:
            return f"was ended by {signal.Signals(status - 128).name}"
    return f"exited with status {status}"
