"""Ray on this machine for one study, and the token that lets processes into Ray."""

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import ray
import torch
from ray._private.authentication.authentication_token_setup import _enable_token_auth

from search import provenance
from training.config import PROJECT

QUIET = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@contextmanager
def ray_session(dashboard: bool) -> Iterator[str | None]:
    """Start Ray on this machine, unless this process has Ray already; yields the address of a dashboard started here.

    Args:
        dashboard: Start one, for this machine only.
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
                    **QUIET,
                )
            dashboard_url = context.dashboard_url
        try:
            yield dashboard_url
        finally:
            if not was_there:
                ray.shutdown()


def use_known_token() -> None:
    """Have this process show a cluster the token that this user has, unless the environment says otherwise."""
    if _token_is_known() and "RAY_AUTH_MODE" not in os.environ:
        _enable_token_auth()  # the variable alone would be too late: Ray read it when it was imported


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
