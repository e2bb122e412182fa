"""Whole studies in the test's own process, one trial after the other, without Ray; and commands run to their end here.

What Ray Tune does for a study, `SerialTuner` does in Ray's order: it asks the searcher for a trial, runs it, tells each
report to the stopper, the scheduler and the callback, and its end to the callback. A study has the same numbers as with
the real Ray and one worker, which `test_study.py` checks, and takes a second instead of ten. What it cannot show:
races between workers, workers that die or hang, and everything that is about Ray's own processes.
"""

import functools
import gc
import io
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any, NoReturn, Self, TextIO
from unittest import mock

import optuna
import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler

from training.config import PROJECT
from training.threads import restored_threads

Variables = dict[str, str]
"""Of the environment."""


class _StoppedError(BaseException):
    """Ends a trial from within its report, past all that its training catches."""


class _WorkerLog(io.StringIO):
    """What a trial prints, which Ray keeps from the terminal; what is told of a signal meanwhile goes past it."""

    def __init__(self, stdout: TextIO) -> None:
        super().__init__()
        self._stdout = stdout

    def fileno(self) -> int:
        return self._stdout.fileno()


class SerialTuner:
    """Takes the place of `ray.tune.Tuner` for studies that have one callback and one stopper."""

    def __init__(self, trainable: Callable[[dict[str, Any]], None], *, tune_config: Any, run_config: Any) -> None:
        self._trainable = trainable
        self._searcher, self._scheduler = tune_config.search_alg, tune_config.scheduler
        (self._callback,), self._stopper = run_config.callbacks, run_config.stop

    def fit(self) -> None:
        """Run trials until the searcher proposes no more, or the stopper ends them all."""
        trials = 0
        while not self._stopper.stop_all():
            trial = SimpleNamespace(trial_id=f"serial_{trials:05}", error_file=None)
            proposal = self._searcher.suggest(trial.trial_id)
            if proposal is None:  # the study is paused
                time.sleep(0.02)
                continue
            if not isinstance(proposal, dict):
                return
            trials += 1
            self._scheduler.on_trial_add(None, trial)
            self._callback.on_trial_start(trial=trial)
            self._run(trial, proposal)

    def _run(self, trial: SimpleNamespace, proposal: dict[str, Any]) -> None:
        report = functools.partial(self._report, trial, sys.stdout)
        session = SimpleNamespace(report=report, loaded_checkpoint=None, world_rank=None)
        with mock.patch("ray.train._internal.session._session", session), redirect_stdout(_WorkerLog(sys.stdout)):
            try:
                self._trainable(proposal)
                ended = self._callback.on_trial_complete
            except _StoppedError:
                ended = self._callback.on_trial_complete
                if self._stopper.stop_all():
                    return  # Ray tells nobody of trials that it ends with the whole experiment
            except Exception:
                ended = self._callback.on_trial_error
        ended(trial=trial)

    def _report(self, trial: SimpleNamespace, stdout: TextIO, metrics: dict[str, Any], **_: Any) -> None:
        with redirect_stdout(stdout):
            stops = self._tell(trial, metrics)
        if stops:
            raise _StoppedError

    def _tell(self, trial: SimpleNamespace, metrics: dict[str, Any]) -> bool:
        """Tell everybody what a trial reports; returns whether it is to end."""
        self._callback.on_step_begin()
        result = {**metrics, "trial_id": trial.trial_id, "pid": os.getpid(), "node_ip": "127.0.0.1"}
        stops = self._stopper(trial.trial_id, result)
        if not stops:
            stops = self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
        self._callback.on_trial_result(trial=trial, result=result)
        return bool(stops or self._stopper.stop_all())


def _with_parameters(trainable: Callable[..., None], **parameters: Any) -> Callable[..., None]:
    return functools.wraps(trainable)(functools.partial(trainable, **parameters))


@contextmanager
def serial_ray() -> Iterator[None]:
    """While this lasts, studies of this process run their trials here and start no Ray."""
    session = "search.engine.local_ray.LocalRay"
    with ExitStack() as stack:
        for patch in (
            mock.patch.object(tune, "Tuner", SerialTuner),
            mock.patch.object(tune, "with_parameters", _with_parameters),
            mock.patch("search.engine.tuner.worker_class", lambda trainable, *_: trainable),
            mock.patch(f"{session}.begin"),
            mock.patch(f"{session}.wait", return_value=None),
            mock.patch("search.monitoring.prometheus.Gauge"),
        ):
            stack.enter_context(patch)
        yield


@dataclass(frozen=True)
class CompletedRun:
    """What a command that has ended returned and printed."""

    status: int
    stdout: str
    stderr: str


def run_command(script: str, *options: str, cwd: Path | None = None, **variables: str) -> CompletedRun:
    """Run a command of the project to its end in this process; a study that it runs needs no Ray.

    It is the script as Python runs it, what guards its output included, and its output is what arrives at the file
    descriptors. Afterwards this process is as it was before.

    Args:
        script: The file, from the project's folder, for example `search/run.py`.
        options: The words behind it.
        cwd: Where it is started; by default where this process is.
        variables: Of its environment.

    Raises:
        Exception: What the command does not catch, which would be a traceback in its output.
    """
    with _captured() as output, _process_restored():
        status = _run(script, options, cwd, variables, real=False)
    return CompletedRun(status, *output)


class StartedRun:
    """A command in a process of its own, which can be killed: a copy of this one, so that it begins at once."""

    def __init__(
        self,
        script: str,
        *options: str,
        stdout: int | None = None,
        real: bool = False,
        variables: Variables | None = None,
    ) -> None:
        """Start it.

        Args:
            script: The file, from the project's folder.
            options: The words behind it.
            stdout: Descriptor of its standard output, if it is not to be kept for `end`.
            real: Whether its study runs with the real Ray.
            variables: Of its environment, besides those of this process.
        """
        self._status: int | None = None
        self._output = TemporaryFile()  # noqa: SIM115 (open until the end of the command)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self._output.fileno() if stdout is None else stdout, 1)
            os.dup2(self._output.fileno(), 2)
            become_command(script, *options, real=real, variables=variables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it if it still runs."""
        if self.is_running():
            self.send(signal.SIGKILL)
            self.end()

    @property
    def output(self) -> str:
        """What it has printed by now, to both outputs."""
        return os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0).decode()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status is None

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns its exit status, or the negative signal, and its output."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        assert self._status is not None
        return self._status, self.output


def become_command(
    script: str, *options: str, cwd: Path | None = None, real: bool = False, variables: Variables | None = None
) -> NoReturn:
    """Be a command from now on: what a copy of the test's process does, whose outputs are those of the command.

    Args:
        script: The file, from the project's folder.
        options: The words behind it.
        cwd: Where it is started; by default where this process is.
        real: Whether its study runs with the real Ray, which no test starts in its own process: a copy of a process
            with Ray waits for ever for threads that it lacks.
        variables: Of its environment, besides those of this process.
    """
    status = 70
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the test's time limit is that of its own process
        sys.stdout, sys.stderr = _streams()
        status = _run(script, options, cwd, variables or {}, real=real)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # whatever the test would do at its end


def _run(script: str, options: tuple[str, ...], cwd: Path | None, variables: Variables, *, real: bool) -> int:
    """Run a script as Python would; returns its exit status."""
    status: object = 0
    engine = nullcontext() if real else serial_ray()
    with engine, chdir(cwd or Path.cwd()), pytest.MonkeyPatch.context() as changed:
        for name, value in variables.items():
            changed.setenv(name, value)
        changed.setattr(sys, "argv", [str(PROJECT / script), *options])
        try:
            runpy.run_path(str(PROJECT / script), run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    assert status is None or isinstance(status, int), status
    return status or 0


def _streams() -> Iterator[io.TextIOWrapper]:
    """New standard outputs over their descriptors."""
    for descriptor in (1, 2):
        yield io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding="utf-8", write_through=True)


@contextmanager
def _captured() -> Iterator[list[str]]:
    """While this lasts, both outputs go to files, by their descriptors too; afterwards the list has what came."""
    texts: list[str] = []
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in streams]
        saved = [os.dup(descriptor) for descriptor in (1, 2)]
        try:
            for descriptor, file in enumerate(files, start=1):
                os.dup2(file.fileno(), descriptor)
            sys.stdout, sys.stderr = _streams()
            yield texts
        finally:
            sys.stdout, sys.stderr = streams
            for descriptor, original in enumerate(saved, start=1):
                os.dup2(original, descriptor)
                os.close(original)
            for file in files:
                file.seek(0)
                texts.append(file.read().decode())


@contextmanager
def _process_restored() -> Iterator[None]:
    """Bring back, at the end, what a command changes in its process because it would end soon."""
    verbosity = optuna.logging.get_verbosity()
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    gc.freeze()  # nothing is looked for in what is there already
    try:
        with mock.patch("gc.freeze"), restored_threads():
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        gc.collect()  # closes the files and locks that the end of its process would
        gc.unfreeze()
