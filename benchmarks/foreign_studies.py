"""Make studies with other programs, in environments of their own: python benchmarks/foreign_studies.py FOLDER.

A version of a program is installed by pip into FOLDER/environments, unless this environment has it ("here"). Then each
study is imported, and the result is printed. The studies of the tests, tests/foreign/, are some of these.
"""

import io
import os
import subprocess
import sys
import time
import venv
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from search import report
from training.config import PROJECT

PACKAGES = {
    "optuna-2.10.1": ["optuna==2.10.1", "sqlalchemy==1.4.54", "numpy==1.26.4", "pandas==3.0.6", "setuptools==65.5.0"],
    "optuna-3.6.2": ["optuna==3.6.2", "sqlalchemy==2.0.58", "pandas==3.1.1"],
    "optuna-4.9.0": ["optuna==4.9.0", "sqlalchemy==2.1.9", "pandas==3.1.1"],
    "ray-2.10.0": ["ray[tune]==2.10.0", "numpy==1.26.4", "pandas==2.2.3", "pyarrow==15.0.2", "setuptools==75.8.0"],
}
"""The packages of each environment."""
HERE = "here"
ENVIRONMENTS = [*PACKAGES, HERE]

Study = tuple[str, str, list[str], list[str]]
"""Its file or folder, the environment, the command that makes it (with {} for the file), and options of its import."""
VALUES = ["--parameters", "learning_rate", "batch_size", "optimizer", "--metric", "val_loss"]
STUDIES: list[Study] = [
    ("optuna-2-pruned.db", "optuna-2.10.1", ["with_optuna.py", "pruned", "{}"], []),
    ("optuna-2-conditional.db", "optuna-2.10.1", ["with_optuna.py", "conditional", "{}"], []),
    ("optuna-2-two.db", "optuna-2.10.1", ["with_optuna.py", "two-objectives", "{}"], ["--metric", "0"]),
    ("optuna-2-several.db", "optuna-2.10.1", ["with_optuna.py", "several-studies", "{}"], ["--study", "second"]),
    ("optuna-3-pruned.db", "optuna-3.6.2", ["with_optuna.py", "pruned", "{}"], []),
    ("optuna-3-conditional.db", "optuna-3.6.2", ["with_optuna.py", "conditional", "{}"], []),
    ("optuna-3-two.db", "optuna-3.6.2", ["with_optuna.py", "two-objectives", "{}"], ["--metric", "loss"]),
    ("optuna-3-other.db", "optuna-3.6.2", ["with_optuna.py", "other-value", "{}"], ["--metric", "distance"]),
    ("optuna-4-pruned.db", "optuna-4.9.0", ["with_optuna.py", "pruned", "{}"], []),
    ("optuna-4-conditional.db", "optuna-4.9.0", ["with_optuna.py", "conditional", "{}"], []),
    ("optuna-4-two.db", "optuna-4.9.0", ["with_optuna.py", "two-objectives", "{}"], ["--metric", "parameters"]),
    ("optuna-5-pruned.db", HERE, ["with_optuna.py", "pruned", "{}"], []),
    ("optuna-5-conditional.db", HERE, ["with_optuna.py", "conditional", "{}"], []),
    ("optuna-5-other.db", HERE, ["with_optuna.py", "other-value", "{}"], []),
    ("optuna-5-several.db", HERE, ["with_optuna.py", "several-studies", "{}"], ["--study", "first"]),
    ("optuna-4.csv", "optuna-4.9.0", ["with_tables.py", "optuna", "{}", "optuna-4-conditional.db"], ["--mode", "min"]),
    ("optuna-steps.csv", "optuna-4.9.0", ["with_tables.py", "optuna-steps", "{}", "optuna-4-pruned.db"], []),
    ("sklearn.csv", HERE, ["with_tables.py", "sklearn", "{}"], ["--metric", "mean_test_score"]),
    ("mlflow.csv", HERE, ["with_tables.py", "mlflow", "{}"], []),
    ("wandb.csv", HERE, ["with_tables.py", "wandb", "{}"], VALUES),
    ("wandb-api.csv", HERE, ["with_tables.py", "wandb-api", "{}"], []),
    ("ray-2.60", HERE, ["with_ray_tune.py", "{}"], ["--metric", "val_accuracy"]),
    ("ray-2.60-table.csv", HERE, [], ["--metric", "val_accuracy"]),
    ("ray-2.10", "ray-2.10.0", ["with_ray_tune.py", "{}"], ["--metric", "val_loss"]),
    ("tensorboard-torch", HERE, ["with_tensorboard.py", "torch", "{}"], ["--metric", "val_loss"]),
    ("tensorboard-x", HERE, ["with_tensorboard.py", "tensorboardX", "{}"], ["--metric", "hparam/accuracy"]),
]

SMALL: list[Study] = [
    ("optuna-2-pruned.db", "optuna-2.10.1", ["with_optuna.py", "pruned", "{}", "16"], []),
    ("optuna-2-conditional.db", "optuna-2.10.1", ["with_optuna.py", "conditional", "{}", "16"], []),
    ("optuna-3-two.db", "optuna-3.6.2", ["with_optuna.py", "two-objectives", "{}", "8"], []),
    ("optuna-4-other.db", "optuna-4.9.0", ["with_optuna.py", "other-value", "{}", "8"], []),
    ("optuna-4-several.db", "optuna-4.9.0", ["with_optuna.py", "several-studies", "{}", "6"], []),
    ("optuna-5-conditional.db", HERE, ["with_optuna.py", "conditional", "{}", "16"], []),
    ("optuna-5.csv", HERE, ["with_tables.py", "optuna", "{}", "optuna-5-conditional.db"], []),
    ("sklearn.csv", HERE, ["with_tables.py", "sklearn", "{}"], []),
    ("mlflow.csv", HERE, ["with_tables.py", "mlflow", "{}"], []),
    ("wandb.csv", HERE, ["with_tables.py", "wandb", "{}"], []),
    ("wandb-api.csv", HERE, ["with_tables.py", "wandb-api", "{}"], []),
    ("tensorboard-torch", HERE, ["with_tensorboard.py", "torch", "{}"], []),
]
"""The studies of the tests; `--for-tests` makes them and puts them into `FOR_TESTS`."""
FOR_TESTS = PROJECT / "tests" / "foreign_studies.zip"


def python_of(environment: str, folder: Path) -> str:
    """The interpreter of an environment, which is installed if it is not there."""
    if environment == HERE:
        return sys.executable
    path = folder / "environments" / environment
    python = path / "bin" / "python"
    if not python.is_file():
        venv.create(path, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "-q", "install", *PACKAGES[environment]], check=True)
    return str(python)


def make(study: Study, folder: Path) -> None:
    """Make a study, unless it is there."""
    name, environment, command, _ = study
    if command and not (folder / name).exists():
        script, *arguments = command
        words = [str(PROJECT / "benchmarks" / "foreign" / script), *(word.format(folder / name) for word in arguments)]
        variables = os.environ if environment == HERE else {**os.environ, "PYTHONPATH": ""}
        subprocess.run([python_of(environment, folder), *words], check=True, cwd=folder, env=variables)


def imported(study: Study, folder: Path, results: Path) -> tuple[int, str]:
    """Import a study and write its report; returns the exit status, and how the output or the error begins."""
    name, _, _, options = study
    words = ["report.py", "--import", str(folder / name), *options, "--results-dir", str(results)]
    output, errors, began = io.StringIO(), io.StringIO(), time.monotonic()
    with mock.patch.object(sys, "argv", words), redirect_stdout(output), redirect_stderr(errors):
        try:
            status = report.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    said = " ".join(output.getvalue().split("\nMetric")[0].split()) if status == 0 else errors.getvalue().strip()
    return status, f"{said} ({time.monotonic() - began:.0f} s)"


def make_for_tests(folder: Path) -> None:
    """Make the studies of the tests, and put them into one file."""
    with zipfile.ZipFile(FOR_TESTS, "w", zipfile.ZIP_LZMA) as archive:
        for study in SMALL:
            make(study, folder)
            path = folder / study[0]
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    name = str(file.relative_to(folder)).replace(os.uname().nodename, "machine")
                    archive.writestr(name, file.read_bytes())


def main() -> None:
    """Make and import all studies, or those whose names begin like one of the further arguments."""
    folder, begin = Path(sys.argv[1]).absolute(), tuple(sys.argv[2:]) or ("",)
    folder.mkdir(parents=True, exist_ok=True)
    if begin == ("--for-tests",):
        make_for_tests(folder)
        return
    with TemporaryDirectory() as results:
        for study in (study for study in STUDIES if study[0].startswith(begin)):
            make(study, folder)
            status, said = imported(study, folder, Path(results))
            print(f"{study[0]}: {'imported' if status == 0 else f'exit status {status}'}: {said}", flush=True)


if __name__ == "__main__":
    main()
