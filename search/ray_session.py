"""Ray for one study: started on this machine, or joined where a cluster runs."""

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import ray
import torch

from search import provenance
from training.config import PROJECT

_QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL}


def join_cluster(address: str) -> None:
    """Connect to a cluster that runs already, and send it this project's code.

    Args:
        address: `auto` for the cluster of this machine, otherwise `ip:port` of its head.

    Raises:
        ValueError: There is no cluster, or it does not let us in; the message says which.
    """
    if _token_is_known():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    packages = [str(PROJECT / name) for name in ("search", "training")]
    try:
        ray.init(address=address, runtime_env={"py_modules": packages}, **_QUIET)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"the Ray cluster at {address} cannot be joined: {first_line}") from None


def cpus_and_gpus() -> tuple[int, int]:
    """What there is for trials, in the cluster that was joined or on this machine."""
    if ray.is_initialized():
        resources = ray.cluster_resources()
        return int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return provenance.available_cpus(), torch.cuda.device_count()


@contextmanager
def ray_session(dashboard: bool, joined: bool) -> Iterator[str | None]:
    """Start Ray on this machine, unless this process has Ray already; yields the address of a dashboard started here.

    Args:
        dashboard: Start one, for this machine only.
        joined: `join_cluster` was called; the cluster is left when this ends, as is a Ray that was started here.
    """
    dashboard_url, was_there = None, ray.is_initialized()
    with _token_kept():
        if not was_there:
            with chdir(PROJECT):  # Ray lets workers import what lies here, before anything else
                context = ray.init(
                    address="local",  # plain ray.init() stumbles over what a killed cluster left behind
                    num_cpus=provenance.available_cpus(),
                    num_gpus=torch.cuda.device_count(),
                    include_dashboard=dashboard,
                    dashboard_host="127.0.0.1",
                    **_QUIET,
                )
            dashboard_url = context.dashboard_url
        try:
            yield dashboard_url
        finally:
            if joined or not was_there:
                ray.shutdown()


def _token_is_known() -> bool:
    kept = Path("~/.ray/auth_token").expanduser()
    return bool({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()) or kept.is_file()


@contextmanager
def _token_kept() -> Iterator[None]:
    """Give Ray's token a place of its own where the home folder cannot be written; nobody else can read it."""
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
