"""The terminal while a study runs: one view of fixed height that is drawn anew in its place."""

import os
import signal
import sys
import threading
import time
from itertools import accumulate
from types import FrameType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.analysis.gain import baseline_name, gain_over_baseline
from search.monitoring.terminal import View, dashboard_line, shown_names, shown_value
from search.record.ranking import ended_trials, epochs_run, epochs_saved, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.terminal import format_value, printable

FRAMES_PER_SECOND = 2
"""Each costs the driver some milliseconds, which the trials could use."""
MOST_ROWS = 8
"""Running trials that are shown."""
BLOCKS = "▁▂▃▄▅▆▇█"
WIDE = 80
"""Columns of a terminal from which on everything is shown."""
NARROW_COLUMN = 9
"""As wide as a number with four significant digits can be."""
OTHERS_NARROW, OTHERS_WIDE = 27, 40
"""Characters of a row besides the hyperparameters, the shortest sparkline included."""
SPARK_EPOCHS = 12
"""Newest epochs in a sparkline."""


class LiveView(View):
    """Shows how far a study has come, the running trials and the best so far.

    Whatever anything in this process prints meanwhile, in whatever way, appears above the view line by line.
    """

    def __init__(self, header: list[str], record: StudyRecord, *, began: float, num_samples: int, rows: int) -> None:
        """Show a study that is about to run.

        Args:
            header: The lines at the top.
            record: Of the study.
            began: When the command began, by `time.monotonic`.
            num_samples: Trials that are to have ended at the end.
            rows: Trials that can run at the same time.
        """
        self._record = record
        self._header = list(header)
        self._began = began
        self._num_samples = num_samples
        self._rows = min(rows, MOST_ROWS)
        self._ended_before = len(ended_trials(record.trials))
        self._trials_began: float | None = None

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._capture = _Capture()
        self._console = _Console(file=self._capture.terminal, highlight=False)
        self._live = Live(
            self,
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._printer = threading.Thread(target=self._print_above, daemon=True)
        self._printer.start()
        self._resize_before = signal.signal(signal.SIGWINCH, self._on_resize)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the view away."""
        signal.signal(signal.SIGWINCH, self._resize_before)
        self._capture.end()
        self._printer.join(timeout=1.0)  # a process started meanwhile may hold the pipe open
        self._live.stop()
        self._capture.terminal.close()

    def show_dashboard(self, url: str | None) -> None:
        """Show where the dashboard is."""
        self._header.append(dashboard_line(url))

    def begin_trials(self) -> None:
        """Measure from now on how long trials take."""
        self._trials_began = time.monotonic()

    def show_ended(self, trial: TrialRecord) -> None:
        """Nothing: the next picture shows it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The view as it is now."""
        yield from map(_line, self._header)
        yield from (Text(""), self._time(), self._bar(), *self._best(), Text(""))
        yield self._running(options.max_width)

    def _print_above(self) -> None:
        for line in self._capture.lines:
            self._console.print(Text(printable(line.rstrip("\n"))))

    def _on_resize(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin on an empty screen: where the old lines are now, nobody knows."""
        self._console.clear()
        self._live.refresh()

    def _time(self) -> Text:
        record = self._record
        elapsed = time.monotonic() - self._began
        left = self._seconds_left()
        text = _line()
        text.append(clock(elapsed), "bold")
        text.append(" elapsed" if left is None else f" elapsed, about {clock(left)} left")
        counts = [f"{sum(trial.status == status for trial in record.trials)} {words}" for status, words in _COUNTED]
        text.append("   " + ", ".join(count for count in counts if not count.startswith("0 ")), "dim")
        return text

    def _bar(self) -> RenderableType:
        ended, wanted = len(ended_trials(self._record.trials)), self._num_samples
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        grid.add_row(ProgressBar(total=max(1, wanted), completed=ended), f"{ended} of {wanted} trials")
        return grid

    def _best(self) -> list[RenderableType]:
        record, best = self._record, self._best_so_far()
        lines: list[RenderableType] = [Text("best     none yet", "dim"), Text("")]
        metrics = best.best_epoch if best else None
        if best and metrics:
            first = _line("best     ")
            first.append(f"{record.metric} {record.objective.value(metrics):.4f}", "bold")
            first.append(f", trial {best.number}")
            gain = gain_over_baseline(record, metrics, record.metric)
            first.append(f", {gain} over the {baseline_name(self._record.metadata)}" if gain else "")
            values = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
            lines = [first, _line(f"         {values}")]
        run, saved = epochs_run(record.trials), epochs_saved(record.trials, record.epochs)
        stopping = "" if record.metadata.plan else f", {saved} saved by stopping weak trials early"
        lines.append(_line(f"epochs   {run} run{stopping}"))
        return lines

    def _best_so_far(self) -> TrialRecord | None:
        """The best trial, be it still running."""
        going_on = [trial for trial in self._record.trials if trial.status == "running" and trial.epochs]
        sign = -1 if self._record.mode == "min" else 1
        return max(
            [*valid_trials(self._record.trials), *going_on],
            key=lambda trial: (sign * trial.best_value, -trial.number),
            default=None,
        )

    def _running(self, columns: int) -> RenderableType:
        """A row for each trial that runs, and as many empty ones as there could be more: the height stays the same.

        Of the hyperparameters the first ones are shown, as many as have room.
        """
        record, is_narrow = self._record, columns < WIDE
        room = columns - (OTHERS_NARROW if is_narrow else OTHERS_WIDE)
        widths = [NARROW_COLUMN if is_narrow else max(len(name), NARROW_COLUMN) for name in shown_names(self._record)]
        ends = accumulate(width + 2 for width in widths)
        names = [name for name, end in zip(shown_names(self._record), ends, strict=True) if end <= room]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("#", justify="right", no_wrap=True, min_width=2)
        for name, width in zip(names, widths, strict=False):
            table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis", width=width)
        table.add_column("epoch", justify="right", no_wrap=True, min_width=5)
        table.add_column("now", justify="right", no_wrap=True, min_width=6)
        if not is_narrow:
            table.add_column("best", justify="right", no_wrap=True, min_width=6)
        table.add_column(record.metric, no_wrap=True, overflow="ellipsis")
        running = sorted(
            (trial for trial in record.trials if trial.status == "running"), key=lambda trial: trial.number
        )
        for trial in running[: self._rows]:
            best, last = trial.best_epoch, trial.epochs[-1] if trial.epochs else None
            values = [f"{record.objective.value(metrics):.4f}" if metrics else "" for metrics in (last, best)]
            table.add_row(
                str(trial.number),
                *(format_value(shown_value(trial, name)) for name in names),
                f"{len(trial.epochs)}/{record.epochs}",
                *values[: 1 if is_narrow else 2],
                sparkline([record.objective.value(metrics) for metrics in trial.epochs]),
            )
        for _ in range(self._rows - len(running)):
            table.add_row("")
        return table

    def _seconds_left(self) -> float | None:
        """By how long the trials of this start have taken so far; None before one has ended."""
        ended = len(ended_trials(self._record.trials)) - self._ended_before
        if self._trials_began is None or ended == 0:
            return None
        running = [trial for trial in self._record.trials if trial.status == "running"]
        begun = sum(len(trial.epochs) / self._record.epochs for trial in running)
        left = self._num_samples - len(ended_trials(self._record.trials)) - begun
        return max(0.0, (time.monotonic() - self._trials_began) / (ended + begun) * left)


_COUNTED = (
    ("completed", "completed"),
    ("stopped_early", "stopped early"),
    ("diverged", "diverged"),
    ("failed", "failed"),
)


def _line(text: str = "") -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def sparkline(values: list[float]) -> str:
    """The newest values as blocks from their lowest to their highest."""
    shown = values[-SPARK_EPOCHS:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    steps = [(value - low) / (high - low) if high > low else 0.5 for value in shown]
    return "".join(BLOCKS[min(int(step * len(BLOCKS)), len(BLOCKS) - 1)] for step in steps)


def clock(seconds: float) -> str:
    """Seconds as 1:23 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Capture:
    """Leads what is written to standard output and standard error into a pipe."""

    def __init__(self) -> None:
        self._kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        reader, writer = os.pipe()
        for descriptor in self._kept:
            os.dup2(writer, descriptor)
        os.close(writer)
        self.lines = os.fdopen(reader, encoding="utf-8", errors="backslashreplace")
        """What anything in this process prints."""
        self.terminal = os.fdopen(os.dup(self._kept[1]), "w", encoding="utf-8", errors="backslashreplace")
        """The way past the pipe."""

    def end(self) -> None:
        """Give the descriptors back; whoever reads the lines then comes to their end."""
        sys.stdout.flush()
        for descriptor, original in self._kept.items():
            os.dup2(original, descriptor)
            os.close(original)


class _Console(Console):
    """A terminal whose cursor stays: a process that is killed could not bring it back."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
        return False
