"""Shared by all tests: one thread, small data, constant files read once, and Ray in a short folder of its own.

What takes seconds to import is imported by fixtures: the process that shares the tests out imports this file too.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # commands say `python`
os.environ["OMP_NUM_THREADS"] = "1"  # a tiny fit is 30 times slower with two threads on a busy two-core machine

from search.ray_environment import set_ray_environment

set_ray_environment()  # before Ray is imported

if TYPE_CHECKING:
    from training.images.image_data import ImageData

MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # hundreds of studies wait for no disk


LONGEST = [
    *("cluster", "faults", "chaos", "command", "whole_study", "storage", "from_python", "users_world", "live_view"),
    *("resume", "study", "programs", "documented_commands", "damaged", "confirm", "security", "dashboards", "report"),
]
"""The files of tests that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that two processes which share the files end together."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


Draw = dict[str, Callable[..., bytes]]
"""How each of the static charts is drawn, by the name of its function."""


@contextmanager
def _charts_drawn_by(functions: Draw) -> Iterator[None]:
    from search.outputs import static_charts

    with pytest.MonkeyPatch.context() as patch:
        for name, function in functions.items():
            patch.setattr(static_charts, name, function)
        yield


@pytest.fixture(scope="session", autouse=True)
def draw() -> Iterator[Draw]:
    """Leave out what would take most of the time of the tests' small studies; yields how static charts are drawn.

    Each study would import the files of all versions of Optuna's schema, read the digits from their text, ask git and
    pip for the versions of the code, draw charts at which few tests look, and resample its trials a hundred times for
    the intervals of the importances.
    """
    import torch
    from optuna.storages import RDBStorage

    from search.outputs import static_charts
    from search.record import provenance
    from training.images import image_data

    torch.set_num_threads(1)
    charts = static_charts.learning_curves, static_charts.optimisation_history, static_charts.importance_bars
    draw = {chart.__name__: chart for chart in charts}
    versions = RDBStorage("sqlite://")._version_manager._create_alembic_script()
    with (
        mock.patch("optuna.storages._rdb.storage._VersionManager._create_alembic_script", return_value=versions),
        mock.patch.object(image_data, "_load_digits", cache(image_data._load_digits)),
        mock.patch.object(provenance, "git_commit", cache(provenance.git_commit)),
        mock.patch("search.record.provenance.version", cache(version)),
        _charts_drawn_by({name: lambda *_: b"no picture" for name in draw}),
        mock.patch("search.analysis.importance.RESAMPLES", 10),
    ):
        yield draw


@pytest.fixture(scope="module")
def drawn_charts(draw: Draw) -> Iterator[None]:
    """The static charts of a module's tests are drawn, or those of one test that names this fixture."""
    with _charts_drawn_by(draw):
        yield


@pytest.fixture(scope="session")
def digits() -> "ImageData":
    """The bundled digits: 1,198 training, 240 validation and 359 test images of 8 x 8."""
    from training.config import DataConfig
    from training.images.image_data import load_data

    return load_data(DataConfig(dataset="digits"), split_seed=0)[0]


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    """Folder of the real Fashion-MNIST; tests that need it are skipped where it is not at hand."""
    from training.config import DataConfig

    folder = DataConfig().data_dir
    if not (folder / "FashionMNIST").is_dir():
        pytest.skip("no Fashion-MNIST in the data folder; TUNESMITH_DATA can name another one")
    return folder


@pytest.fixture
def few_images(digits: "ImageData") -> "ImageData":
    """64 digits that are training, validation and test images at once."""
    from training.images.image_data import ImageData, ImageSplit

    split = ImageSplit(digits.train.images[:64], digits.train.labels[:64])
    return ImageData(
        name="digits", classes=digits.classes, train=split, val=split, test=split, sha256="not the whole data set"
    )


@pytest.fixture(scope="session", autouse=True)
def _ray_in_a_folder_of_its_own() -> Iterator[None]:
    folder = tempfile.mkdtemp(prefix="ts-", dir="/tmp")  # Ray's socket paths must stay below 107 bytes
    os.environ["RAY_TMPDIR"] = folder
    os.environ["TMPDIR"] = tempfile.tempdir = folder  # where studies find each other: those of tests are by themselves
    os.environ["TUNESMITH_TEST_NOTES"] = f"{folder}/notes"  # what trainables of tests note down
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # for workers that run a function of a test module
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def without_ray() -> Iterator[None]:
    """Studies of this process run their trials here, one after the other."""
    from serial_ray import serial_ray

    with serial_ray():
        yield
