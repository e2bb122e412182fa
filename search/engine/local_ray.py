"""Starts Ray on this machine for one study, and finds or creates the token of Ray."""

import atexit
import ctypes
import functools
import importlib
import logging
import os
import resource
import secrets
import shutil
import signal
import site
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray
import torch
from ray._private.authentication.authentication_token_setup import _enable_token_auth
from ray.job_config import JobConfig
from ray.tune.execution import class_cache

from search.ray_environment import set_ray_environment
from search.record import provenance
from training.config import PROJECT

ANSWER_SECONDS = 5.0
"""Seconds in which the page of the dashboard must answer."""
KEEPING_SECONDS = 0.02
"""Seconds after which the handler of a signal is set again while Ray starts."""
LEAST_VIRTUAL_MEMORY = 8 << 30
"""Bytes of addresses that Ray needs, most of them unused: it reserves far more than it writes."""
QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL}


class StudyJobConfig(JobConfig):  # type: ignore[misc]
    """A job whose workers import our code from one folder, and then what lies beside the script of this process.

    Ray puts the driver's current folder before all others, where a module may have the name of one of ours.
    """

    def __init__(self, folder: Path | None = PROJECT, **options: Any) -> None:
        """Set the folder; None if the runtime environment brings our code."""
        super().__init__(**options)
        script = Path(sys.argv[0]).resolve()
        is_of_user = script.is_file() and str(script.parent) in sys.path and script.parent != PROJECT
        if folder in [Path(installed) for installed in site.getsitepackages()]:
            folder = None  # workers have it on their path; before all others, it could hide modules of Python
        folders = [script.parent if is_of_user else None, folder]  # Ray puts each before those that precede it
        self._folders = [str(folder) for folder in folders if folder is not None]

    def _serialize(self) -> str:
        self._py_driver_sys_path = self._folders
        return super()._serialize()  # type: ignore[no-any-return]


class LocalRay:
    """Ray on this machine for one study, unless this process has started Ray already.

    Ray starts in a thread, so that the data can be loaded meanwhile, and then its dashboard. The thread lives as long
    as Ray does, because the system ends the processes of Ray with the thread that started them.
    """

    def __init__(self, *, dashboard: bool, workers: int = 0) -> None:
        """Prepare the start.

        Args:
            dashboard: Whether the dashboard starts, too; only this machine can reach it.
            workers: Number of worker processes that start with Ray, so that they have imported what trials need when
                the first trials begin.
        """
        self._has_dashboard = dashboard
        self._workers = workers
        self._is_ours = False
        self._started: Future[None] | None = None
        self._dashboard_url: Future[str | None] = Future()
        self._ended = Event()

    def begin(self, job_name: str) -> None:
        """Begin to start Ray.

        Args:
            job_name: Name of this process in the dashboard.
        """
        if self._started is None:
            self._started = Future()
            atexit.register(self.close)
            job_config = StudyJobConfig(metadata={"job_name": job_name})
            Thread(target=self._run, args=[self._started, job_config], daemon=True).start()

    def wait(self, job_name: str = "tunesmith") -> None:
        """Wait until Ray has started."""
        self.begin(job_name)
        assert self._started is not None
        self._started.result()

    def dashboard_url(self) -> str | None:
        """Wait until the dashboard has started; returns its address if it was started here and answers."""
        return None if self._started is None else self._dashboard_url.result()

    def on_crash(self, end: Callable[[str], object]) -> None:
        """Call a function, in a thread, with the name of a process of Ray that ends by itself.

        Ray ends this process soon afterwards: at its next call, or after a minute.
        """
        if self._is_ours:
            for name in ("raylet", "gcs_server"):
                Thread(target=self._watch, args=[name, end], daemon=True).start()

    def _watch(self, name: str, end: Callable[[str], object]) -> None:
        (started,) = ray._private.worker._global_node.all_processes[name]
        started.process.wait()
        if self._is_ours:
            end(name)

    def close(self) -> None:
        """End Ray; while it starts, it ends as soon as it has started, or the system ends it with this process."""
        if self._is_ours:
            self._is_ours = False
            node = ray._private.worker._global_node
            agents = _children(node.all_processes["raylet"][0].process.pid)
            kill = node.kill_all_processes
            # by SIGKILL, because these processes block SIGTERM, and Ray would wait a second for each
            node.kill_all_processes = lambda **_: kill(check_alive=False)
            ray.shutdown()
            for pid in agents:  # they would try to reach Ray for a minute
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._ended.set()

    def _run(self, started: "Future[None]", job_config: StudyJobConfig) -> None:
        # Ray's processes inherit this: `timeout`, systemd and scancel send SIGTERM to all processes of a study, and
        # Ray has to last until the driver has ended the trials
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with _temporary_token(), ExitStack() as stack:
            try:
                if not ray.is_initialized():
                    self._start(job_config)
                    stack.enter_context(_no_variables_of_workers())
                started.set_result(None)
            except Exception as error:  # whatever Ray raises
                started.set_exception(OSError(f"Ray cannot start on this machine: {' '.join(str(error).split())}"))
            if self._ended.is_set():
                self.close()  # it was closed before it had started
            self._dashboard_url.set_result(self._start_dashboard() if self._is_ours else None)
            self._ended.wait()

    def _start(self, job_config: StudyJobConfig) -> None:
        set_ray_environment()
        _protect_token()
        # `ray.init` would wait for the dashboard before it starts anything else
        changed = _start_of_ray(self._workers, dashboard_agent_listen_port=0, no_monitor=not self._has_dashboard)
        with changed, _kept_handler(signal.SIGTERM):
            ray.init(
                address="local",  # plain ray.init() fails if a killed cluster left its address behind
                num_cpus=provenance.available_cpus(),
                num_gpus=torch.cuda.device_count(),
                _memory=machine_memory(),  # what is free now, as Ray counts by default, would differ each time
                include_dashboard=False,
                dashboard_host="127.0.0.1",
                job_config=job_config,
                **QUIET,
            )
        # Ray's colorama would write an escape sequence at exit, which our standard output prints as text
        atexit.unregister(importlib.import_module("colorama.initialise").reset_all)
        self._is_ours = True

    def _start_dashboard(self) -> str | None:
        if not self._has_dashboard:
            return None
        node = ray._private.worker._global_node
        try:
            node.start_api_server(include_dashboard=True, raise_on_failure=False)
        except Exception:  # whatever Ray raises; a study needs no dashboard
            return None
        url: str | None = node.webui_url
        return url if url and _answers(url) else None


@contextmanager
def _kept_handler(number: signal.Signals) -> Iterator[None]:
    """Set what handles a signal again and again: Ray replaces it by what prints the stack and aborts.

    `signal.signal` would do this in the main thread only, which may be loading data.
    """
    api = ctypes.pythonapi
    api.PyOS_getsig.restype, api.PyOS_setsig.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    handler = api.PyOS_getsig(number)
    ended = Event()

    def keep() -> None:
        while not ended.wait(KEEPING_SECONDS):
            api.PyOS_setsig(number, handler)

    thread = Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        api.PyOS_setsig(number, handler)


@contextmanager
def _start_of_ray(workers: int, **parameters: Any) -> Iterator[None]:
    """Change how Ray starts where `ray.init` has no parameter for it.

    The agent of a second Ray on the machine would try for 3 s to get the default port, and Ray waits for its agent.
    Processes are spared: the monitor is for clusters that grow, and only the dashboard shows what it says; the log
    monitor sends the logs of workers to the driver, which does not print them; without a dashboard, its process only
    sends statistics of use to the makers of Ray. Ray would start a worker for each core.
    """
    internals = ray._private
    start_process = internals.services.start_ray_process
    option = "--num_prestart_python_workers="

    def start_with_workers(command: list[str], *args: Any, **options: Any) -> Any:
        command = [f"{option}{workers}" if part.startswith(option) else part for part in command]
        return start_process(command, *args, **options)

    with (
        _replaced(
            internals.parameter,
            "RayParams",
            functools.partial(internals.parameter.RayParams, include_log_monitor=False, **parameters),
        ),
        _replaced(internals.services, "start_ray_process", start_with_workers),
        _replaced(internals.node.Node, "start_api_server", lambda *_, **__: None),
    ):
        yield


@contextmanager
def _no_variables_of_workers() -> Iterator[None]:
    """Let Ray Tune set no variables in workers, which inherit them from this process: so it takes those started."""

    def actor_class(cache: Any, trainable: type) -> Any:
        if trainable not in cache._cache:
            cache._cache[trainable] = ray.remote(trainable)
        return cache._cache[trainable]

    with _replaced(class_cache._ActorClassCache, "get", actor_class):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute while this lasts."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _children(pid: int) -> list[int]:
    """Processes that a process has started; none on systems without /proc."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _answers(address: str) -> bool:
    """Whether the page of the dashboard can be loaded."""
    try:
        with urllib.request.urlopen(f"http://{address}", timeout=ANSWER_SECONDS) as page:
            return bool(page.status == HTTPStatus.OK)
    except OSError:
        return False


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container of this process, has."""
    return int(ray._private.utils.get_system_memory())


def check_system() -> None:
    """Refuse a system on which Ray would fail or wait for ever without a reason.

    Raises:
        ValueError: There is no bash, or the memory is limited.
    """
    if shutil.which("bash") is None:
        raise ValueError("Ray needs bash to start its workers, but no folder in PATH has it")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_VIRTUAL_MEMORY:
        raise ValueError(
            f"the limit of virtual memory (ulimit -v) is {limit >> 20} MiB, "
            f"but Ray needs {LEAST_VIRTUAL_MEMORY >> 20} MiB"
        )


def use_known_token() -> None:
    """Let this process use the token of this user for a cluster, unless RAY_AUTH_MODE is set."""
    if _token_is_known() and "RAY_AUTH_MODE" not in os.environ:
        _enable_token_auth()  # it is too late to set the variable, which Ray read at its import


def _token_is_known() -> bool:
    file = Path("~/.ray/auth_token").expanduser()
    return bool({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()) or file.is_file()


def _protect_token() -> None:
    """Let nobody else read the token of this user; Ray would create it for all users to read."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return
    file = Path("~/.ray/auth_token").expanduser()
    if not file.exists():
        with suppress(FileExistsError), tempfile.NamedTemporaryFile("w", dir=file.parent) as draft:  # mode 0600
            draft.write(secrets.token_hex(32))
            draft.flush()
            os.link(draft.name, file)  # unlike a rename, this replaces no token of another study
    elif file.stat().st_mode & 0o077:
        with suppress(OSError):  # the token may belong to another user
            file.chmod(0o600)


@contextmanager
def _temporary_token() -> Iterator[None]:
    """Create a token in a temporary file that only this user can read, if the home folder cannot be written."""
    if _token_is_known() or _can_write(Path("~/.ray").expanduser()):
        yield
        return
    with tempfile.NamedTemporaryFile("w", prefix="ray-token-") as file:  # mode 0600
        file.write(secrets.token_hex(32))
        file.flush()
        os.environ["RAY_AUTH_TOKEN_PATH"] = file.name
        try:
            yield
        finally:
            del os.environ["RAY_AUTH_TOKEN_PATH"]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
