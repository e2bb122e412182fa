"""Shows a study in Weights & Biases: a run for each trial, and the study as their group."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import wandb

from search.monitoring.logger import best_epoch, best_name, measured
from search.record.folder import write_atomically
from search.record.study_record import StudyRecord
from search.record.trial import FAILED, TrialRecord


class _Written:
    """What W&B has of a trial, noted in a file: it cannot be asked, for it may be offline."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.epoch, self.has_ended = 0, False
        if file.exists():
            values = json.loads(file.read_text())
            self.epoch, self.has_ended = int(values["epoch"]), bool(values["has_ended"])

    def write(self) -> None:
        write_atomically(self._file, json.dumps({"epoch": self.epoch, "has_ended": self.has_ended}))


class WandbLog:
    """Writes the runs of a study into `wandb/` in its folder, and to the server if somebody is logged in."""

    def __init__(self, record: StudyRecord) -> None:
        """Decide where to write; nobody is asked anything.

        Raises:
            ValueError: WANDB_MODE wants a server, and nobody is logged in.
        """
        self._record = record
        self._mode = _mode()
        name = f"{record.study.study_name} {record.metadata.sessions[0].time}"
        self._id = sha256(name.encode()).hexdigest()[:8]  # others may have the same name
        self._notes = record.folder / "wandb" / "trials"
        self._notes.mkdir(parents=True, exist_ok=True)
        self._runs: dict[int, wandb.Run] = {}
        self._written: dict[int, _Written] = {}

    def epoch(self, trial: TrialRecord) -> None:
        """Write the epochs of a trial that are not there yet."""
        written = self._has(trial)
        new = [metrics for metrics in trial.epochs if metrics.epoch > written.epoch]
        for metrics in new:
            self._run(trial).log(measured(metrics), step=metrics.epoch)
            written.epoch = metrics.epoch
        if new:
            written.write()

    def ended(self, trial: TrialRecord) -> None:
        """Write how a trial ended, and its best value if that stands."""
        written = self._has(trial)
        if written.has_ended:
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
        written.has_ended = True
        written.write()

    def close(self) -> None:
        """End the runs of interrupted trials; they go on when the trials do."""
        for run in self._runs.values():
            run.summary["status"] = "interrupted"
            run.finish(exit_code=0)

    def _has(self, trial: TrialRecord) -> _Written:
        number = trial.number
        if number not in self._written:
            self._written[number] = _Written(self._notes / f"trial-{number:04}.json")
        return self._written[number]

    def _run(self, trial: TrialRecord) -> wandb.Run:
        number, record = trial.number, self._record
        if number not in self._runs:
            self._runs[number] = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "tunesmith",
                group=record.folder.name,
                name=f"trial-{number:04}",
                id=f"{self._id}-{number:04}",
                config=trial.hyperparameters | {"seed": trial.seed},
                dir=record.folder,
                mode=self._mode,
                resume="allow",
                reinit="create_new",  # many at a time
                settings=_settings(),
            )
        return self._runs[number]


def _mode() -> Any:
    """What WANDB_MODE says; else online if somebody is logged in."""
    wandb.setup(_settings())
    wanted = os.environ.get("WANDB_MODE")
    if wanted not in (None, "", "online", "shared"):
        return wanted
    if wandb.login(prompt=False, verify=False):
        return wanted or "online"
    if wanted:
        raise ValueError(f"WANDB_MODE is {wanted} and nobody is logged in: wandb login")
    return "offline"


def _settings() -> wandb.Settings:
    """Nothing on the terminal; and nothing of the machine, the code or the command line, where a password may be."""
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
