"""Shows a study in Weights & Biases: a run for each trial, and the study as the group of the runs."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import wandb

from search.monitoring.logger import best_epoch, best_name, hyperparameters_and_seed, metric_values
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord
from training.atomic_file import write_atomically


class _TrialProgress:
    """Notes in a file what was written to W&B for a trial, because W&B may be offline and cannot be asked."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.epoch, self.has_ended = 0, False
        if file.is_file():
            values = json.loads(file.read_text())
            self.epoch, self.has_ended = int(values["epoch"]), bool(values["has_ended"])

    def write(self) -> None:
        write_atomically(self._file, json.dumps({"epoch": self.epoch, "has_ended": self.has_ended}))


class WandbLog:
    """Writes the runs of a study into `wandb/` in its folder, and to the server if somebody is logged in."""

    def __init__(self, record: StudyRecord) -> None:
        """Choose the mode; there is no prompt.

        Raises:
            ValueError: WANDB_MODE requires a server, and nobody is logged in.
        """
        self._record = record
        self._mode = _mode()
        name = f"{record.study.study_name} {record.metadata.sessions[0].time}"
        self._id = sha256(name.encode()).hexdigest()[:8]  # names of studies are not unique
        self._notes = record.folder / "wandb" / "trials"
        self._notes.mkdir(parents=True, exist_ok=True)
        self._runs: dict[int, wandb.Run] = {}
        self._progress: dict[int, _TrialProgress] = {}

    def epoch(self, trial: TrialRecord) -> None:
        """Write the new epochs of a trial."""
        progress, record = self._find_progress(trial), self._record
        new = [metrics for metrics in trial.epochs if metrics.epoch > progress.epoch]
        for metrics in new:
            self._run(trial).log(metric_values(record, metrics), step=metrics.epoch)
            progress.epoch = metrics.epoch
        if new:
            progress.write()

    def ended(self, trial: TrialRecord) -> None:
        """Write how a trial ended, and its best value if its metrics are valid."""
        progress = self._find_progress(trial)
        if progress.has_ended:
            return
        self.epoch(trial)
        summary: dict[str, Any] = {"status": trial.status}
        if trial.failure:
            summary["error"] = trial.failure.error
        if best := best_epoch(trial):
            summary[best_name(self._record)] = self._record.objective.value(best)
        run = self._run(trial)
        run.summary.update(summary)
        run.finish(exit_code=1 if trial.status in FAILED else 0)
        del self._runs[trial.number]
        progress.has_ended = True
        progress.write()

    def close(self) -> None:
        """End the runs of interrupted trials; they are continued when the trials continue."""
        for run in self._runs.values():
            run.summary["status"] = "interrupted"
            run.finish(exit_code=0)

    def _find_progress(self, trial: TrialRecord) -> _TrialProgress:
        number = trial.number
        if number not in self._progress:
            self._progress[number] = _TrialProgress(self._notes / f"trial-{number:04}.json")
        return self._progress[number]

    def _run(self, trial: TrialRecord) -> wandb.Run:
        number, record = trial.number, self._record
        if number not in self._runs:
            self._runs[number] = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "tunesmith",
                group=record.folder.name,
                name=f"trial-{number:04}",
                id=f"{self._id}-{number:04}",
                config=hyperparameters_and_seed(record, trial),
                dir=record.folder,
                mode=self._mode,
                resume="allow",
                reinit="create_new",  # many runs at a time
                settings=_settings(),
            )
        return self._runs[number]


def _mode() -> Any:
    """Choose the mode: that of WANDB_MODE, or else online if somebody is logged in."""
    wandb.setup(_settings())
    mode = os.environ.get("WANDB_MODE")
    if mode not in (None, "", "online", "shared"):
        return mode
    if wandb.login(prompt=False, verify=False):
        return mode or "online"
    if mode:
        raise ValueError(f"WANDB_MODE is {mode}, but you are not logged in: run wandb login")
    return "offline"


def _settings() -> wandb.Settings:
    """Switch off output, and records of the machine, the code and the command line, which may hold a password."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
