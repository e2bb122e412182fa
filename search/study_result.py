"""A study as a Python program sees it: its tables, its best trial, its confirmation, and what a notebook displays."""

import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from search.engine.passed_code import pass_again, passed_code, take_settings
from search.outputs.confirmation_text import confirmation_table, describe_result
from search.outputs.tables import epoch_table, trial_table
from search.record.columns import hyperparameter_columns, metric_columns
from search.record.file_names import REPORT
from search.record.lookup import as_options, check_code_named, confirm_line, find_study, reproduce_line, stored_settings
from search.record.postgresql import open_server
from search.record.ranking import best_trial, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.reproduce import prepare_reproduction, show_reproduction
from search.retraining.confirm_study import confirm, prepare_confirmation
from search.retraining.settings import ConfirmSettings
from search.settings import StudySettings
from search.space.search_space import Point
from training.console.terminal import counted, format_metric, format_value, printable, short_path
from training.random_state import seeded
from training.threads import restored_threads
from training.user_code import UserCode

ROWS = 5
"""Number of trials that a notebook displays, the best ones."""


@dataclass(frozen=True)
class Code:
    """The user's own code and data that this program has given for a study."""

    named: dict[str, str] = field(default_factory=dict)
    """Import paths by setting, for example `network`."""
    passed: dict[str, UserCode] = field(default_factory=dict)
    """What was passed by value, by the import path that stands for it."""


class StudyResult:
    """A study that has run or is running: what its record held when this was created.

    A notebook displays its best trials and its charts.
    """

    def __init__(
        self,
        record: StudyRecord,
        *,
        storage: str | None,
        code: Code,
    ) -> None:
        """Use `load_study` or `run_search` instead."""
        self._record = record
        self._storage = storage
        self._code = code

    @property
    def name(self) -> str:
        """The name of the study."""
        return self._record.folder.name

    @property
    def folder(self) -> Path:
        """The folder of the study, with its report and its files."""
        return self._record.folder

    @property
    def settings(self) -> StudySettings:
        """The settings of the study."""
        return self._record.metadata.settings

    @property
    def trials(self) -> pd.DataFrame:
        """The table `trials.csv`: one row for each trial that does not run, the best first."""
        return trial_table(self._record)

    @property
    def epochs(self) -> pd.DataFrame:
        """The table `epochs.csv`: one row for each epoch of these trials, by trial number and epoch."""
        return epoch_table(self._record)

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best trial; None if no trial has valid metrics."""
        return best_trial(self._record.trials)

    @property
    def best_hyperparameters(self) -> Point:
        """The hyperparameters of the best trial, searched and fixed ones; a ValueError if there is none."""
        return self._record.space.add_fixed(self._best().hyperparameters)

    @property
    def best_value(self) -> float:
        """The metric of the study in the best epoch of the best trial; a ValueError if there is none."""
        return self._best().best_value

    @property
    def confirmation(self) -> pd.DataFrame | None:
        """The table `confirm.csv`: one row for each confirmed configuration, the winner first; None without one."""
        confirmation = self._record.metadata.confirmation
        return None if confirmation is None else confirmation_table(self._record, confirmation)

    def confirm(
        self,
        *,
        top: int = 3,
        seeds: int = 5,
        train_function: Callable[..., Any] | str | None = None,
        network: Callable[..., Any] | str | None = None,
        dataset: Any = None,
        **options: Any,
    ) -> "StudyResult":
        """Train the best configurations again from new seeds, as `search/confirm.py` does, and print the result.

        Args:
            top: Number of configurations, the best ones; >= 1.
            seeds: Number of new seeds for each of them, and then for the winner alone; >= 2.
            train_function: The function of the study, as in `run_search`. This and the next two are needed only if they
                are the user's own, and if the study comes from `load_study`: nothing that runs code is stored.
            network: The network of the study.
            dataset: The images of the study.
            options: Other options of `search/confirm.py`, with underscores, for example `max_concurrent=1`.

        Returns:
            The study with its confirmation. If there is none because it ended early, the same call continues it.

        Raises:
            ValueError: There is nothing to confirm, code is not passed, or an option breaks a rule.
            OSError: A folder cannot be read or written.
        """
        given = {"train_function": train_function, "network": network, "dataset": dataset}
        where = self.folder, self._record.address, stored_settings(self.folder, self._storage)
        line = confirm_line(*where, top=top, seeds=seeds)
        code = self._take_code(given, line)
        size = ConfirmSettings(study=self.name, top=top, seeds=seeds, storage=self._storage, **options)
        with _process_restored():
            confirm(prepare_confirmation(self.folder, size, time.monotonic()), command=line)
        return read_study(self.folder, self._storage, code)

    def reproduce(
        self,
        trial: int,
        *,
        train_function: Callable[..., Any] | str | None = None,
        network: Callable[..., Any] | str | None = None,
        dataset: Any = None,
    ) -> bool:
        """Train a trial again in this process, as `search/reproduce.py` does, and print how its metrics compare.

        Args:
            trial: Number of the trial.
            train_function: As in `confirm`.
            network: As in `confirm`.
            dataset: As in `confirm`.

        Returns:
            Whether all metrics equal the recorded ones to the last digit, and the training ended in the same way.

        Raises:
            ValueError: There is no such trial, it has no epoch, or code is not passed.
            OSError: A folder cannot be read.
        """
        given = {"train_function": train_function, "network": network, "dataset": dataset}
        settings = stored_settings(self.folder, self._storage)
        self._take_code(given, reproduce_line(self.folder, self._record.address, settings, trial))
        with _process_restored():
            return show_reproduction(prepare_reproduction(self.folder, trial, settings, self._storage))

    def __repr__(self) -> str:
        return f"Study {self.name}: {self._counts()}; {self._best_words()}"

    def _repr_html_(self) -> str:
        """What a notebook displays; it needs no network."""
        parts = [f"<p><b>Study {escape(self.name)}</b>: {self._counts()}; {escape(self._best_words())}</p>"]
        if confirmation := self._record.metadata.confirmation:
            parts.append(f"<p>Confirmed: {escape(' '.join(describe_result(confirmation)))}</p>")
        if valid_trials(self._record.trials):
            parts += [self._best_rows(), *map(_image, self._charts())]
        report = self.folder / REPORT
        if report.is_file():
            parts.append(f"<p>Report: {escape(str(short_path(report)))}</p>")
        return f"<div>{''.join(parts)}</div>"

    def _take_code(self, given: Mapping[str, Any], call: str) -> "Code":
        """The code that the study needs; a ValueError says which is missing, and names the call that passes it."""
        pass_again(self._code.passed)
        named = self._code.named | {name: path for name, path in take_settings(given).items() if path is not None}
        settings = stored_settings(self.folder, self._storage)
        check_code_named(self.name, settings, as_options(named), call)
        return Code(named, passed_code(settings))

    def _best(self) -> TrialRecord:
        best = self.best_trial
        if best is None:
            raise ValueError(f"no trial of study {self.name} has valid metrics")
        return best

    def _counts(self) -> str:
        counts = Counter(trial.status.replace("_", " ") for trial in ranked(self._record.trials))
        listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        return counted(counts.total(), "trial") + (f" ({listed})" if listed else "")

    def _best_words(self) -> str:
        best = self.best_trial
        if best is None:
            return "no trial has valid metrics"
        point = ", ".join(f"{name} {format_value(value)}" for name, value in best.hyperparameters.items())
        return printable(f"best {self._record.metric} {format_metric(best.best_value)} of trial {best.number}, {point}")

    def _best_rows(self) -> str:
        record = self._record
        metrics = [metric_columns(record)[name] for name in record.metadata.task.displayed_metrics]
        columns = ["trial_number", "status", *hyperparameter_columns(record).values(), "epochs", *metrics]
        rows = self.trials[columns].head(ROWS).map(lambda value: "" if pd.isna(value) else format_value(value))
        table: str = rows.rename(columns=printable).to_html(index=False, border=0)
        return table

    def _charts(self) -> Sequence[bytes]:
        """Charts of the report as PNG files, which a saved notebook shows on any page."""
        from search.outputs import static_charts  # matplotlib takes a second

        return static_charts.learning_curves(self._record), static_charts.optimisation_history(self._record)


def load_study(study: str | Path, *, results_dir: str | Path | None = None, storage: str | None = None) -> StudyResult:
    """Read a study that has run or is running; nothing is written, and no code of the study is run.

    Args:
        study: Path of its folder, its name in the results folder, or `latest`.
        results_dir: The folder of all studies.
        storage: Address of the PostgreSQL server that has the record, unless there is a `study.db`.

    Raises:
        ValueError: There is no such study, or its record is damaged.
    """
    results = Path(results_dir) if results_dir is not None else StudySettings().results_dir
    return read_study(find_study(str(study), results, storage), storage, Code())


def read_study(folder: Path, storage: str | None, code: Code) -> StudyResult:
    """Read the study in a folder, of whose code this program has given some."""
    server = open_server(storage) if storage is not None else None
    with closing(StudyRecord.open(folder, server)) as record:
        return StudyResult(record, storage=storage, code=code)


@contextmanager
def _process_restored() -> Iterator[None]:
    """Let the program go on afterwards with its threads and its random numbers, whatever was trained meanwhile."""
    with restored_threads(), seeded(0):
        yield


def _image(png: bytes) -> str:
    return f'<img style="max-width: 49%" src="data:image/png;base64,{b64encode(png).decode()}">'
