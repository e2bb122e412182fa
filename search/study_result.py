"""A study as a Python program sees it: tables of pandas, its best trial, and what a notebook displays."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from html import escape
from pathlib import Path

import pandas as pd

from search.outputs.tables import epoch_table, trial_table
from search.record.columns import hyperparameter_columns, metric_columns
from search.record.file_names import REPORT
from search.record.lookup import find_study
from search.record.postgresql import open_server
from search.record.ranking import best_trial, ranked, valid_trials
from search.record.study_record import StudyRecord
from search.record.trial import TrialRecord
from search.settings import StudySettings
from search.space.search_space import Point
from training.console.terminal import counted, format_metric, format_value, printable, short_path

ROWS = 5
"""Number of trials that a notebook displays, the best ones."""


class StudyResult:
    """A study that has run or is running: what its record held when this was created.

    A notebook displays its best trials and its charts.
    """

    def __init__(self, record: StudyRecord) -> None:
        """Use `load_study` instead."""
        self._record = record

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

    def __repr__(self) -> str:
        return f"Study {self.name}: {self._counts()}; {self._best_words()}"

    def _repr_html_(self) -> str:
        """What a notebook displays; it needs no network."""
        parts = [f"<p><b>Study {escape(self.name)}</b>: {self._counts()}; {escape(self._best_words())}</p>"]
        if valid_trials(self._record.trials):
            parts += [self._best_rows(), *map(_image, self._charts())]
        report = self.folder / REPORT
        if report.is_file():
            parts.append(f"<p>Report: {escape(str(short_path(report)))}</p>")
        return f"<div>{''.join(parts)}</div>"

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
    folder = find_study(str(study), results, storage)
    server = open_server(storage) if storage is not None else None
    with closing(StudyRecord.open(folder, server)) as record:
        return StudyResult(record)


def _image(png: bytes) -> str:
    return f'<img style="max-width: 49%" src="data:image/png;base64,{b64encode(png).decode()}">'
