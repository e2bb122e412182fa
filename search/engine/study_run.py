"""Runs the trials of a study; opens and closes its files, its loggers, its view and Ray."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from threading import Thread
from types import TracebackType
from typing import Self

from search.algorithms.stopping import StudyStopper, end_at_once
from search.engine.header import header_lines
from search.engine.recording_callback import RecordingCallback
from search.engine.running_studies import RunningStudy, announce
from search.engine.sign_in import SignIn, open_browser
from search.engine.study import Study
from search.engine.tuner import run_trials
from search.engine.write_retry import WriteRetry
from search.monitoring.loggers import Loggers
from search.monitoring.terminal import PlainView, View
from search.outputs.files import StudyFiles
from search.record import folder as study_folder
from search.record import provenance
from search.record.database import RecordUnwritableError
from search.record.file_names import STUDY_DB
from search.record.mailbox import Mailbox
from search.record.ranking import ended_trials
from training.console.json_output import Error, write_object
from training.console.notebook import in_notebook
from training.console.progress_bar import shows_more_than_lines
from training.console.terminal import show_event

EXIT_OK, EXIT_NOTHING_COMPLETED = 0, 1
RunUntil = Callable[[int | None], None]
"""Runs trials until this number of trials has ended, or the study ends early; None for the number in its settings."""


class StudyRun:
    """A study that this process runs; everything is closed when the block ends.

    The first SIGINT or SIGTERM ends the study in order, and a second one ends the process at once. If the record can no
    longer be written, the block ends and the reason is printed.
    """

    def __init__(self, study: Study, command: str) -> None:
        """Prepare the run; nothing is started yet.

        Args:
            study: From `prepare_study`.
            command: The command line that goes on with the study if it ends early.
        """
        self.study = study
        self._command = command
        self.stopper = StudyStopper(study.settings.time_budget_seconds)
        self._sign_in: SignIn | None = None
        self.unwritable: str | None = None
        """Why the record could no longer be written, in one sentence; None if it could."""

    def __enter__(self) -> Self:
        """Start the loggers, and handle signals."""
        study, self._stack = self.study, ExitStack()
        self._stack.callback(study.folder.close)
        self._stack.callback(study.record.close)
        self.files, self.loggers = StudyFiles(study.record), Loggers(study.settings, study.record)
        self._stack.callback(self.loggers.close)
        self._stack.enter_context(self.stopper.signal_handlers())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Close everything, and print why if the record could not be written."""
        try:
            self._stack.close()
            if isinstance(error, RecordUnwritableError):
                self.unwritable = f"Stopped: {error}. What was recorded before is safe."
                print(f"\n{self.unwritable}")
                return True
            if error is None:
                self._linger()
            return False
        finally:
            if self._sign_in is not None:
                self._sign_in.close()
            self.study.ray.close()

    @property
    def exit_status(self) -> int:
        """0 if a trial ended with valid metrics, 1 if none did or all raised one error, 128 + number after a signal."""
        measured = any(trial.has_ended and trial.is_valid for trial in self.study.record.trials)
        return self.stopper.exit_status(EXIT_OK if measured and not self.unwritable else EXIT_NOTHING_COMPLETED)

    @contextmanager
    def trials(self) -> Iterator[RunUntil]:
        """Show trials and let them run until the block ends; Ray starts before the first trial.

        Raises:
            RecordUnwritableError: The record cannot be written any more, and a signal asked the study to end.
        """
        study, record = self.study, self.study.record
        if record.address is None:
            study.folder.hold_open(record.folder / STUDY_DB)
        record.retry_writes_with(WriteRetry(study.folder, self.stopper))
        self.files.refresh(force=True)
        if record.metadata.plan is None:
            _point_latest_to(study)
        with ExitStack() as stack:
            view = stack.enter_context(build_view(study))
            callback: RecordingCallback | None = None

            def run_until(num_ended: int | None) -> None:
                nonlocal callback
                ended = ended_trials(record.trials)
                is_complete = len(ended) >= (num_ended or record.num_samples)
                is_complete = is_complete and not any(trial.may_continue for trial in ended)
                if is_complete and not Mailbox(record.folder).has_requests():
                    return
                if callback is None:
                    self._start_ray(stack, view)
                    callback = RecordingCallback(study, self.files, self.loggers, self.stopper, view)
                    stack.callback(callback.close)
                    stack.enter_context(view.requests_go_to(callback.ask))
                run_trials(study, callback, self.stopper, num_ended)

            yield run_until
            record.interrupt_running()
        record.fetch_from_store()
        *earlier, session = record.metadata.sessions
        seconds = round(time.monotonic() - study.began, 3)
        record.update(sessions=[*earlier, replace(session, seconds=seconds)])
        self.files.refresh(force=True)

    def _start_ray(self, stack: ExitStack, view: View) -> None:
        """Start Ray on this machine unless a cluster was joined, and show the address of the dashboard."""
        study = self.study
        settings, trials = study.settings, study.machines.max_concurrent_trials
        plan, name = study.record.metadata.plan, study.record.folder.name
        title = f"confirmation of study {plan.study}" if plan else f"study {name}"
        taken = RunningStudy(
            title,
            min(trials * settings.cpus_per_trial, provenance.available_cpus()),
            trials * settings.gpus_per_trial,
            trials * (settings.memory_per_trial_mb or 0.0),
        )
        stack.enter_context(announce(taken))
        if study.machines.cluster:
            stack.callback(study.machines.cluster.leave)
        else:
            study.ray.wait(study.record.folder.name)
            study.ray.on_crash(self._end_without_ray)
            if not study.settings.dashboard_linger:
                stack.callback(study.ray.close)  # before the view ends, because Ray prints about workers that end
        self.stopper.handle_signals()
        if study.settings.dashboard:
            url = study.machines.cluster.dashboard_url if study.machines.cluster else study.ray.dashboard_url()
            view.show_dashboard(url, self._open_dashboard(url))
        Thread(target=_import_report, args=[study.settings.num_samples], daemon=True).start()

    def _open_dashboard(self, url: str | None) -> str | None:
        """Open the dashboard in the browser if the settings ask for it; returns what is said about signing in."""
        if url is None or not self.study.settings.open_dashboard:
            return None
        try:
            self._sign_in = SignIn(url)
        except (ValueError, OSError) as error:
            show_event(f"the dashboard cannot be opened signed in: {error}")
            return None
        address = str(self._sign_in.address)
        if open_browser(address):
            return f"{address} (opened)"
        return f"{address} ({'works once' if self._sign_in.needs_token else 'needs no token'})"

    def _end_without_ray(self, process: str) -> None:
        """Print a sentence and end this process, before Ray ends it without a sentence."""
        sentence = f"Stopped: {process}, a process of Ray, has died. What was recorded is safe."
        write_object(Error(message=sentence))
        end_at_once(f"{sentence} To continue: {self._command}", EXIT_NOTHING_COMPLETED)

    def _linger(self) -> None:
        """Hold Ray and its dashboard open, until the time is up or somebody presses Ctrl-C."""
        settings = self.study.settings
        if not settings.dashboard_linger or self.stopper.signal is not None or self.study.machines.cluster is not None:
            return
        self.study.ray.wait(self.study.record.folder.name)
        dashboard_url = self.study.ray.dashboard_url()
        if dashboard_url is None:
            print("\nThere is no dashboard that could stay open.")
            return
        print(
            f"\nThe dashboard stays open for {settings.dashboard_linger}: http://{dashboard_url} (Ctrl-C closes it)",
            flush=True,
        )
        if self._sign_in is None and (sign_in := self._open_dashboard(dashboard_url)):
            print(f"Sign in: {sign_in}", flush=True)
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a process in the background ignores SIGINT by default
        with suppress(KeyboardInterrupt):
            time.sleep(settings.dashboard_linger_seconds)


def build_view(study: Study) -> View:
    """Build a live view if standard output is a terminal that can show it, or a notebook; otherwise a plain view.

    With `--json`, the plain view is for standard error, and objects are written besides.
    """
    header, record = header_lines(study), study.record
    if study.settings.json:
        from search.monitoring.json_view import JsonView

        return JsonView(header, record, max_concurrent_trials=study.machines.max_concurrent_trials)
    if not study.settings.quiet and in_notebook():
        from search.monitoring.notebook_view import NotebookView

        return NotebookView(header, record, began=study.began)
    if study.settings.quiet or not shows_more_than_lines():
        return PlainView(header, record)
    from search.monitoring.live_view import LiveView  # rich takes a fifth of a second

    rows = study.machines.max_concurrent_trials
    return LiveView(header, record, began=study.began, rows=rows)


def _point_latest_to(study: Study) -> None:
    try:
        study_folder.point_latest_to(study.record.folder)
    except OSError as error:
        show_event(f"results/latest does not point to this study ({error.strerror})")


def _import_report(num_samples: int) -> None:
    """Import the libraries of the report of so many trials while they run, because this takes seconds."""
    import search.outputs.model_export
    import search.outputs.report
    import search.outputs.summary  # noqa: F401
    from search.analysis.fixing import FEWEST_TRIALS

    if num_samples >= FEWEST_TRIALS:
        import sklearn.gaussian_process  # noqa: F401
