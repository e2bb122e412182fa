"""Lets a training function that was written for Ray Tune report to a study, unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.train._internal import session as ray_session

from search.engine.reporter import Report, Reporter
from search.record.trial import Metrics
from training.checkpoint import Checkpoint


@contextmanager
def tune_calls(reporter: Reporter, checkpoint: Checkpoint) -> Iterator[None]:
    """While this lasts, `tune.report` and `tune.get_checkpoint` lead to the reporter and the checkpoint of a trial.

    Ray has no public place for this. Both functions ask its session, however the user has imported them; so another
    session answers.
    """
    with _session(_Session(ray_session._session, reporter, checkpoint)):
        yield


def outside_of_tune_calls(report: Report) -> Report:
    """A function that reports as now, also while `tune_calls` lasts."""
    session = ray_session._session

    def report_to_ray(metrics: Metrics, *, is_last: bool) -> None:
        with _session(session):
            report(metrics, is_last=is_last)

    return report_to_ray


@contextmanager
def _session(session: Any) -> Iterator[None]:
    """Let a session answer Ray's functions while this lasts."""
    before = ray_session._session
    ray_session._session = session
    try:
        yield
    finally:
        if ray_session._session is session:  # Ray may have ended it meanwhile
            ray_session._session = before


class _Session:
    """Ray's session of a trial, in which reports and checkpoints are those of a training function."""

    def __init__(self, original: Any, reporter: Reporter, checkpoint: Checkpoint) -> None:
        self._original = original
        """None outside of a trial, as in a reproduction."""
        self._reporter = reporter
        self._checkpoint = checkpoint

    def report(self, metrics: dict[str, Any], checkpoint: tune.Checkpoint | None = None) -> None:
        """Save a checkpoint and report metrics."""
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self._checkpoint.save_folder(self._reporter.epochs + 1, folder)
        self._reporter(metrics)

    @property
    def loaded_checkpoint(self) -> tune.Checkpoint | None:
        """The checkpoint from which the training goes on."""
        folder = self._checkpoint.load_folder()
        return None if folder is None else tune.Checkpoint.from_directory(folder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name, None)
