"""Shows a running study in a terminal: a view of fixed height that is drawn again and again in the same place."""

import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.analysis.gain import gain_over_start
from search.monitoring.terminal import (
    HEADER_LABEL,
    LONGEST_VALUE,
    STATUSES,
    View,
    clock,
    column_names,
    column_value,
    dashboard_lines,
    study_number,
    trial_name,
    value_width,
)
from search.monitoring.time_left import TimeLeft
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from training.console.keys import DOWN, Keys, can_read_keys
from training.console.terminal import counted, format_metric, format_value, printable

FRAMES_PER_SECOND = 2
"""Each frame costs the driver some milliseconds, which the trials could use."""
MAX_ROWS = 8
"""Running trials that are shown at most."""
BLOCKS = "▁▂▃▄▅▆▇█"
BEST_LABEL = 9
"""Characters before the text of a line about the best trial."""
CURVE = "curve"
"""The heading of the sparklines."""
SHORTEST_HEADING = 5
SPARK_EPOCHS = 12
"""Number of epochs in a sparkline at most, the newest ones."""


class _Columns(NamedTuple):
    """Which columns the table of running trials has."""

    num_hyperparameters: int
    are_short: bool
    """Whether a hyperparameter has the width of its values, which may be less than that of its name."""
    has_best: bool
    spark_epochs: int
    """Number of epochs for which a sparkline has room; 0 if there is none."""
    surplus: int = 0
    """Characters that are left over, for the names of hyperparameters that are cut."""


class LiveView(View):
    """Shows the progress of a study, its best trial and its running trials.

    All lines that this process prints meanwhile, also from other threads and libraries, appear above the view.
    """

    def __init__(self, header: list[str], record: StudyRecord, *, began: float, rows: int) -> None:
        """Prepare the view of a study that is about to run.

        Args:
            header: The lines at the top.
            record: The record of the study.
            began: When the command began, by `time.monotonic`.
            rows: Number of trials that can run at the same time.
        """
        self._record = record
        self._header = list(header)
        self._began = began
        self._most_rows = rows
        self._keys: Keys | None = None
        self._ask: Callable[[list[str]], object] = lambda _: None
        self._cursor = 0
        """Number of the running trial that the key s would stop, or that of one before it."""
        self._may_stop: int | None = None
        """Number of the trial that the next key s stops."""
        self._time_left = TimeLeft(record)
        self._trials_began: float | None = None
        self._value_widths = {name: value_width(record.space.get(name)) for name in column_names(record)}

    def __enter__(self) -> Self:
        """Begin to draw, and to capture what this process prints."""
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
        self._resizes = SimpleQueue[bool]()
        self._redrawer = threading.Thread(target=self._redraw, daemon=True)
        self._redrawer.start()
        self._resize_before = signal.signal(signal.SIGWINCH, self._on_resize)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the view."""
        signal.signal(signal.SIGWINCH, self._resize_before)
        self._resizes.put(False)
        self._redrawer.join()
        self._capture.end()
        self._printer.join(timeout=1.0)  # a process started meanwhile may hold the pipe open
        self._live.stop()
        self._capture.terminal.close()

    def show_dashboard(self, url: str | None, sign_in: str | None = None) -> None:
        """Add the address of the dashboard to the header."""
        self._header += dashboard_lines(url, sign_in)

    def begin_trials(self) -> None:
        """Start the clock by which the remaining time is estimated."""
        self._trials_began = time.monotonic()

    def show_ended(self, trial: TrialRecord) -> None:
        """Do nothing, because the next frame shows that the trial has ended."""

    def show_started(self, trial: TrialRecord) -> None:
        """Do nothing, because the next frame shows it."""

    def show_epoch(self, trial: TrialRecord) -> None:
        """Do nothing, because the next frame shows it."""

    def show_stopped(self, trial: TrialRecord) -> None:
        """Do nothing, because the next frame shows it."""

    @contextmanager
    def requests_go_to(self, ask: Callable[[list[str]], object]) -> Iterator[None]:
        """In this context, keys ask for a pause, for the end of the study, or for the end of a trial."""
        if not can_read_keys():
            yield
            return
        self._ask = ask
        with Keys(self._on_key) as self._keys:
            yield
        self._keys = None

    def _on_key(self, key: str) -> None:
        trial, self._may_stop = self._may_stop, None
        match key:
            case "p":
                self._ask(["resume" if self._record.metadata.is_paused else "pause"])
            case "q":
                self._ask(["stop"])
            case "s" if trial is not None:
                self._ask(["stop-trial", str(trial)])
            case "s" if self._record.metadata.plan is None:  # the trainings of a confirmation are planned
                self._may_stop = self._chosen
            case "up" | "down":
                shown = [one.number for one in self._running_trials()]
                if self._chosen in shown:
                    place = shown.index(self._chosen) + (1 if key == DOWN else -1)
                    self._cursor = shown[min(max(0, place), len(shown) - 1)]
            case _:
                return
        self._live.refresh()

    @property
    def _rows(self) -> int:
        """Number of rows for running trials; a user may have asked for more than at the beginning."""
        widths = [change.max_concurrent_trials for change in self._record.metadata.widths]
        return min(max([self._most_rows, *widths]), MAX_ROWS)

    @property
    def _chosen(self) -> int | None:
        """Number of the running trial under the cursor; None if no trial runs."""
        shown = [trial.number for trial in self._running_trials()]
        return next((number for number in shown if number >= self._cursor), shown[-1] if shown else None)

    def _running_trials(self) -> list[TrialRecord]:
        """The running trials that are shown."""
        running = (trial for trial in self._record.standings.may_continue() if trial.status == "running")
        return sorted(running, key=lambda trial: trial.number)[: self._rows]

    def _key_line(self) -> list[Text]:
        """What the keys do, if they are read."""
        if self._keys is None:
            return []
        if self._may_stop is not None:
            return [Text(f"s stops trial {self._may_stop} after its epoch, another key does not", "bold")]
        can_stop = self._chosen is not None and self._record.metadata.plan is None
        stop = "" if not can_stop else f"   s stop trial {self._chosen}   up, down: another trial"
        return [Text(f"p {'resume' if self._record.metadata.is_paused else 'pause'}   q end the study{stop}", "dim")]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Build the current frame; its last line names what a small terminal has no room for."""
        table, hidden = self._running(options.max_width)
        header = [(line[:HEADER_LABEL], Text(line[HEADER_LABEL:])) for line in self._header]
        parts = [*header, ("", self._time()), *self._best()]
        keys = self._key_line()
        # the bar, the headings, and what is hidden
        room = options.max_height - 1 - self._rows - 3 - len(keys)
        surplus = min(len(parts) - room, len(header) - 1)
        if surplus > 0:  # the name, and the end with the address of the dashboard, are left
            hidden.insert(0, counted(surplus, "line"))
            del parts[1 : 1 + surplus], header[1 : 1 + surplus]
        lines = _fitted(parts, console, options.max_width, room)
        blank = [Text("")] if sum(map(len, lines)) + 2 <= room else []
        header_lines = itertools.chain(*lines[: len(header)])
        time_lines, *best_lines = lines[len(header) :]
        yield from (*header_lines, *blank, *time_lines, self._bar(), *itertools.chain(*best_lines), *blank, table)
        if hidden:
            names, more = f"hidden: {', '.join(hidden)}", " (a larger terminal shows more)"
            text = Text(names + more if len(names + more) <= options.max_width else names, "dim")
            yield from _lines("", text, console, options.max_width, folds=False)
        for text in keys:
            yield from _lines("", text, console, options.max_width, folds=False)

    def _print_above(self) -> None:
        for line in self._capture.lines:
            self._console.print(Text(printable(line.rstrip("\n"))))

    def _on_resize(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Let a thread draw the view again: the signal may have interrupted this one while it wrote."""
        self._resizes.put(True)

    def _redraw(self) -> None:
        """After each resize, clear the screen, because the position of the old lines is unknown."""
        while self._resizes.get():
            self._console.clear()
            self._live.refresh()

    def _time(self) -> Text:
        record = self._record
        elapsed = time.monotonic() - self._began
        left = self._seconds_left()
        text = Text()
        if self._record.metadata.is_paused:
            text.append("paused, ", "bold")
        text.append(clock(elapsed), "bold")
        text.append(" elapsed" if left is None else f" elapsed, about {clock(left)} left")
        counts = record.standings.counts
        listed = [f"{counts[status]} {status.replace('_', ' ')}" for status in STATUSES if counts[status]]
        text.append("   " + ", ".join(listed), "dim")
        return text

    def _bar(self) -> RenderableType:
        ended, total = self._record.standings.num_ended, self._record.num_samples
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        grid.add_row(ProgressBar(total=max(1, total), completed=ended), f"{ended} of {counted(total, 'trial')}")
        return grid

    def _best(self) -> list[tuple[str, Text]]:
        """Build the lines about the best trial and the epochs: a label and a text each."""
        record, best = self._record, self._record.standings.leader
        lines = [("best", Text("none yet", "dim")), ("", Text())]
        metrics = best.best_epoch if best else None
        if best and metrics:
            first = Text(f"{record.metric} {format_metric(record.objective.value(metrics))}", "bold")
            rest = f", {trial_name(record, best)}"
            gain = gain_over_start(record, best)
            if gain:
                difference = gain.difference(record, record.metric).removesuffix(f" of {record.metric}")
                rest += f", {difference.removeprefix(f'{record.metric} ')} compared with the {gain.over}"
            values = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
            lines = [("best", Text.assemble(first, rest)), ("", Text(values))]
        saved = record.standings.epochs_saved(record.epoch_limit)
        stops = record.metadata.settings.scheduler != "none" and record.epoch_limit
        stops = stops and not record.standings.any_ended_by_itself  # how many are saved is not known
        stopping = f", {saved} saved by stopping weak trials early" if stops else ""
        lines.append(("epochs", Text(f"{record.standings.epochs_run} run{stopping}")))
        return [(label.ljust(BEST_LABEL), text) for label, text in lines]

    def _running(self, available: int) -> tuple[Table, list[str]]:
        """Build a row for each running trial, and empty rows so that the height stays the same.

        Returns:
            The table, and what it does not show.
        """
        record, columns = self._record, self._columns(available)
        widths = self._widths(columns)
        table = Table(box=None, padding=(0, _gap(columns), 0, 0), pad_edge=False, header_style="dim")
        table.add_column("#", justify="right", no_wrap=True, min_width=2)
        for name, width in widths.items():
            table.add_column(Text(printable(name)), justify="right", no_wrap=True, overflow="ellipsis", width=width)
        table.add_column("epoch", justify="right", no_wrap=True, min_width=5)
        for name in ("last", "best")[: 1 + columns.has_best]:
            table.add_column(name, justify="right", no_wrap=True, min_width=6)
        if columns.spark_epochs:
            table.add_column(CURVE, no_wrap=True, width=columns.spark_epochs)
        running = self._running_trials()
        more = record.standings.counts["running"] - len(running)
        chosen = self._chosen if self._keys else None
        for trial in running:
            curve = [*trial.curve.values()]
            values = [format_metric(value) for value in (curve[-1], trial.best_value)] if curve else ["", ""]
            table.add_row(
                Text(str(study_number(record, trial)), "reverse" if trial.number == chosen else ""),
                *(format_value(column_value(trial, name)) for name in widths),
                f"{len(trial.epochs)}/{record.epoch_limit}" if record.epoch_limit else str(len(trial.epochs)),
                *values[: 1 + columns.has_best],
                *([sparkline(curve[-columns.spark_epochs :])] if columns.spark_epochs else []),
            )
        for _ in range(self._rows - len(running)):
            table.add_row("")
        hidden = list(map(printable, column_names(record)[len(widths) :]))
        hidden += [] if columns.has_best else ["best"]
        hidden += [] if columns.spark_epochs else ["curve"]
        hidden += [counted(more, "running trial")] if more else []
        return table, hidden

    def _columns(self, available: int) -> _Columns:
        """Choose the columns for a width: hyperparameters stay longest, the first of them to the end.

        What is left over completes names that are cut, and then makes the sparklines longer.
        """
        everything = len(self._value_widths)
        choices = [
            _Columns(everything, are_short=False, has_best=True, spark_epochs=SPARK_EPOCHS),
            _Columns(everything, are_short=True, has_best=True, spark_epochs=SPARK_EPOCHS // 2),
            _Columns(everything, are_short=True, has_best=False, spark_epochs=len(CURVE)),
            *(_Columns(number, are_short=True, has_best=False, spark_epochs=0) for number in range(everything, -1, -1)),
        ]
        chosen = next((columns for columns in choices if self._total_width(columns) <= available), choices[-1])
        chosen = chosen._replace(surplus=max(0, available - self._total_width(chosen)))
        if not chosen.spark_epochs:
            return chosen
        left = available - self._total_width(chosen)
        return chosen._replace(spark_epochs=min(SPARK_EPOCHS, chosen.spark_epochs + left))

    def _total_width(self, columns: _Columns) -> int:
        record = self._record
        value = len("0.1234") if record.metadata.is_accuracy else LONGEST_VALUE
        widths = [
            max(
                2,
                len(
                    str(
                        max(
                            [
                                self._record.num_samples,
                                *(plan.trials if (plan := record.metadata.plan) else []),
                            ]
                        )
                    )
                ),
            ),
            *self._widths(columns).values(),
            max(5, len(f"{record.epochs}/{record.epochs}")),
            *[value] * (1 + columns.has_best),
            *([columns.spark_epochs] if columns.spark_epochs else []),
        ]
        return sum(widths) + _gap(columns) * (len(widths) - 1)

    def _widths(self, columns: _Columns) -> dict[str, int]:
        """The width of the column of each hyperparameter; what is left over completes as many names as possible."""
        names = column_names(self._record)[: columns.num_hyperparameters]
        lengths = {name: max(len(printable(name)), self._value_widths[name]) for name in names}
        if not columns.are_short:
            return lengths
        widths = {name: max(min(SHORTEST_HEADING, lengths[name]), self._value_widths[name]) for name in names}
        left = columns.surplus
        for name in sorted(names, key=lambda name: lengths[name] - widths[name]):
            more = min(lengths[name] - widths[name], left)
            widths[name], left = widths[name] + more, left - more
        return widths

    def _seconds_left(self) -> float | None:
        """Estimate the remaining time; None before a trial has ended."""
        if self._trials_began is None:
            return None
        metadata = self._record.metadata
        session = len(metadata.sessions) - 1
        widths = [change.max_concurrent_trials for change in metadata.widths if change.session == session]
        workers = [self._most_rows, *widths][-1]  # none while the study is paused
        return self._time_left.seconds(time.monotonic() - self._trials_began, max(1, workers))


def _fitted(parts: list[tuple[str, Text]], console: Console, width: int, height: int) -> list[list[Text]]:
    """The lines of each label with its text: one that is cut, or all; where room is short, all of the last texts."""
    fitted = [_lines(*part, console, width, folds=False) for part in parts]
    for number, part in reversed([*enumerate(parts)]):
        folded = _lines(*part, console, width, folds=True)
        if sum(map(len, fitted)) + len(folded) - 1 <= height:
            fitted[number] = folded
    return fitted


def _lines(label: str, text: Text, console: Console, width: int, *, folds: bool) -> list[Text]:
    """The lines of a text after its label: as many as it needs, or one that is cut after a word."""
    room = max(1, width - len(label))
    first, *others = text.wrap(console, room) or [Text()]
    if others and not folds:
        first, *others = text.wrap(console, max(1, room - 1))
        first.rstrip()
        return [Text(label) + first + Text("…")]
    return [Text(label) + first, *(Text(" " * len(label)) + line for line in others)]


def _gap(columns: _Columns) -> int:
    """Characters between two columns."""
    return 1 if columns.are_short else 2


def sparkline(values: list[float]) -> str:
    """Draw values as blocks; the lowest value is the lowest block."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = 0.25 if math.isinf(high - low) else 1.0
    steps = [scale * value - scale * low for value in values]
    steps = [step / (scale * high - scale * low) if high > low else 0.5 for step in steps]
    return "".join(BLOCKS[min(int(step * len(BLOCKS)), len(BLOCKS) - 1)] for step in steps)


class _Capture:
    """Redirects standard output and standard error of this process into a pipe."""

    def __init__(self) -> None:
        self._originals = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        reader, writer = os.pipe()
        for descriptor in self._originals:
            os.dup2(writer, descriptor)
        os.close(writer)
        self.lines = os.fdopen(reader, encoding="utf-8", errors="backslashreplace")
        """Reads the lines that this process prints."""
        self.terminal = os.fdopen(os.dup(self._originals[1]), "w", encoding="utf-8", errors="backslashreplace")
        """Writes to the terminal, past the pipe."""

    def end(self) -> None:
        """Restore the descriptors; then the lines come to their end."""
        sys.stdout.flush()
        for descriptor, original in self._originals.items():
            os.dup2(original, descriptor)
            os.close(original)


class _Console(Console):
    """A console that never hides the cursor, because a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
        return False
