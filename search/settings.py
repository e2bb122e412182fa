"""Settings of a study and of its confirmation: one field for each option of a command."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from search.task.metric_names import Mode, derived_mode
from search.task.task import Task
from search.task.task_choice import choose_task
from training.config import (
    DataConfig,
    absolute_import_path,
    base_folder,
    check_choice,
    check_network,
    check_seed,
)

SamplerName = Literal["gp", "tpe", "random", "qmc"]
SchedulerName = Literal["asha", "promotion", "median", "hyperband", "none"]
LoggerName = Literal["tensorboard", "mlflow", "wandb"]

RENAMED_SCHEDULING = {"--grace-epochs": "--grace-period", "--reduction": "--reduction-factor"}
RENAMED_OPTIONS = RENAMED_SCHEDULING | {
    "--lr-schedule": "--set lr_schedule=NAME",
    "--precision": "--set precision=NAME",
}
"""Options of earlier versions, and their present names."""
NO_STORES = ("file", "local", "memory", "hdfs", "viewfs", "http", "https", "ftp", "sftp", "ssh")
"""Beginnings of addresses behind which files are not whole whenever they are there, or not for all nodes."""
MEGABYTES = {"MB": 1.0, "GB": 1e3, "TB": 1e6, "MiB": 2**20 / 1e6, "GiB": 2**30 / 1e6, "TiB": 2**40 / 1e6}
"""Megabytes in each unit of memory."""
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,250}=[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
SHORTEST_TIME, LONGEST_TIME = 0.001, 10**9
"""Bounds of a duration in seconds; the timers of the system accept no others."""


@dataclass(frozen=True, kw_only=True)
class StudySettings(DataConfig):
    """Options of a study."""

    num_samples: int = 20
    """Number of trials, the baseline included; >= 1."""
    epochs: int | None = None
    """On images, the number of passes over the training images in a trial that is not stopped early; >= 1, by default
    10. With --train-function or --command, the largest number of epochs of a trial, which your function or program may
    end earlier; by default there is no limit."""
    metric: str | None = None
    """Metric by which trials are compared; the highest accuracy or the lowest loss is the best. By default
    val_accuracy, or test_accuracy if --val-fraction is 0. With --train-function or --command, a metric that your
    function yields or your program prints."""
    mode: Mode | None = None
    """Only with --train-function or --command: whether the highest value of --metric is the best (max) or the lowest
    one (min). By default its name decides: the lowest loss, error, rmse or mae, the highest accuracy, f1, auc or
    score."""
    train_function: str | None = None
    """Search the hyperparameters of your own training function, for which this is the import path,
    path/to/file.py:train or package.module:train. The function is a generator that yields a dictionary of metrics after
    each epoch. The options --space and --metric are needed with it."""
    command: str | None = None
    """Search the hyperparameters of your own program, which this command runs, for example "python train.py --lr {lr}
    --seed {seed}". After each epoch the program prints its metrics as a line of JSON, {"epoch": 3, "val_loss": 0.41}.
    Values take the places of {NAME} for each hyperparameter, {seed}, {epochs}, {trial_folder} and {checkpoint}, a
    folder that an interrupted trial finds again; {--amp} is the option --amp where the hyperparameter amp is true. The
    options --space and --metric are needed with it."""
    parse: str | None = None
    """With --command: regular expression that finds the metrics in a line of the program's output, in named groups, for
    example "epoch (?P<epoch>\\d+).*val loss (?P<val_loss>[\\d.]+)"."""
    imported: Annotated[str | None, tyro.conf.Suppress] = None
    """The program of which the trials were imported by search/report.py --import; no option, and only in records."""
    space: Annotated[
        Path | Mapping[str, Any] | None,
        tyro.conf.arg(constructor=Path | None, help_behavior_hint="(default: None)"),
    ] = None
    """TOML file with the search space. docs/spaces.md explains it, and search/space/spaces/ holds examples. By default
    learning rate, batch size and optimizer are searched."""
    set: tuple[str, ...] = ()
    """Hyperparameters that are fixed instead of searched, for example learning_rate=0.05 optimizer=adam."""
    show_space: bool = False
    """Print the search space as such a TOML file, and run no trial."""
    sampler: SamplerName = "gp"
    """Algorithm that proposes configurations. gp: Gaussian process that learns from unfinished learning curves and from
    the time of an epoch; tpe: tree-structured Parzen estimator; qmc: Sobol sequence; random: random search."""
    prior: tuple[str, ...] = ()
    """Values that you expect to be good, for example learning_rate=0.001 optimizer=adam. The sampler gp tries what is
    near them first, and follows what is measured all the same. docs/using.md says what a wrong value costs."""
    scheduler: SchedulerName = "asha"
    """Algorithm that stops weak trials early. asha: asynchronous successive halving; promotion: the same, but a weak
    trial is paused, and continues as soon as it is among the best of those that came as far; hyperband: successive
    halving whose first decision comes later for some trials; median: a trial stops if it is worse than the median of
    the others; none: every trial runs all epochs. A training that
    saves no checkpoint starts again when it is promoted."""
    grace_period: int = 1
    """Number of epochs that every trial runs before the scheduler may stop it; >= 1."""
    reduction_factor: int = 3
    """For asha, promotion and hyperband: one of this many trials continues at each decision, and the next decision
    comes after this many times as many epochs; >= 2."""
    baseline: bool = True
    """Begin with the default settings, which are trained in full, so that the study can report its gain over them; then
    try the same settings with each other optimizer. The defaults of the mlp are the tutorial's settings. A
    --train-function has the defaults of its dataclass or of its parameters, and a --command has none."""
    full_baseline: bool = True
    """Train the default settings in full. With --no-full-baseline, --scheduler promotion may pause them as any other
    trial, which saves a training; the gain over them is then that after as many epochs as they had."""
    network: str = "mlp"
    """mlp: the tutorial's network; cnn: a small convolutional network; or the import path of your own function or
    class that builds a network, path/to/file.py:build or package.module:build. docs/guide.md explains it."""
    seed: int = 0
    """Seed of the proposals and, on images, of the validation split; trial N trains with this seed + N. Where several
    trials run at the same time, the proposals also depend on which of them reports first; --max-concurrent 1 excludes
    this."""
    max_concurrent: int | None = None
    """Largest number of trials that run at the same time; by default as many as there are cores and GPUs for."""
    cpus_per_trial: int = 1
    """Number of cores for each trial, and of the threads of torch, BLAS and OpenMP in it; >= 1."""
    gpus_per_trial: float = 0.0
    """Number of GPUs for each trial; with a fraction, several trials share a GPU; >= 0."""
    memory_per_trial: str | None = None
    """Memory for each trial, for example 4GB or 800MB: only as many trials run at the same time as the memory of the
    machines allows, and a configuration that is predicted to need more is not tried. A trial that takes more
    nevertheless is not ended. By default nothing is reserved."""
    node_label: tuple[str, ...] = ()
    """With --address: run trials only on nodes of the cluster that have these labels of Ray, each as KEY=VALUE."""
    name: str | None = None
    """Name of the study and of its folder; by default the data set or the file of the training function,
    the date and the time."""
    results_dir: Path = field(default_factory=lambda: base_folder() / "results")
    """Folder of all studies; each study gets a folder of its own in it. By default results/ in the checkout, or in the
    current folder if there is none. An address, s3://bucket/path, is the same as --checkpoints-dir with this
    address."""
    checkpoints_dir: str | None = None
    """Object store for the checkpoints, s3://bucket/path or gs://bucket/path, so that the nodes of a cluster need no
    folder that they share. The record, the tables and the report stay in --results-dir. Credentials come from the
    environment of each node; docs/cluster.md explains it."""
    dashboard: bool = True
    """Start the Ray dashboard on this machine; on a cluster, print the address of its dashboard."""
    open_dashboard: bool = False
    """Open the Ray dashboard in the browser, signed in. Where there is no browser, for example over ssh, the output has
    an address that signs in the first browser that opens it. docs/dashboards.md explains it."""
    quiet: bool = False
    """Print one line for each ended trial instead of the live view. If the output is not a terminal, this is always
    so."""
    json: bool = False
    """For other programs: write one JSON object a line to standard output while the study runs, and all text to
    standard error. docs/programs.md explains it."""
    dashboard_linger: str | None = None
    """Keep the Ray dashboard open for this time after the study, for example 10m; Ctrl-C closes it."""
    log: tuple[LoggerName, ...] = ()
    """Also show the study in one or several of these tools: tensorboard, mlflow, wandb (Weights & Biases).
    docs/dashboards.md explains them."""
    mlflow_uri: str | None = None
    """Database or server for --log mlflow, for example http://host:5000. By default the environment variable
    MLFLOW_TRACKING_URI decides, and without it mlflow.db in the results folder is used."""
    max_failures: int = 1
    """How many times a trial continues in another worker, from its last epoch, after its worker died; >= 0."""
    trial_timeout: str | None = None
    """Longest time that a trial may take, for example 90s, 10m or 1h; a trial that takes longer fails."""
    time_budget: str | None = None
    """Time after which no new trial starts, for example 30m; running trials finish their epoch, and the study can be
    resumed."""
    resume: str | None = None
    """Continue an earlier study: its name, its folder, or latest for the newest study. The study keeps its own
    settings. With this option, --num-samples is the total number of trials, and --num-samples +N adds N trials."""
    resume_existing: bool = False
    """With --name: if there is a study of this name, continue it as --resume does. So the same command line begins a
    study, and goes on with it after SLURM or Kubernetes has started it again."""
    accept_changes: bool = False
    """With --resume: continue although your own code has changed since the study was run, for example by a correction
    that changes no number. You decide whether its new trials are comparable with its old ones. As long as no trial has
    measured anything, a study continues with changed code without this option."""
    fork: bool = False
    """With --resume: leave that study unchanged, and start a new one. The new study has the same settings, except those
    that you give, and the trials of that study as a warm start."""
    warm_start: tuple[str, ...] = ()
    """Names or folders of earlier studies. If metric, network and data are the same, the sampler also learns from those
    of their trials that lie in the new search space. Of other studies, the best configurations are tried first."""
    confirm: str | None = None
    """After the study, train its best configurations again from new seeds, and then the winner on all images; a
    --train-function or a --command has data of its own, so it is not trained on more of them, and a --command needs
    {seed}. For example, 3x5 means three configurations from five seeds. docs/confirm.md explains it."""
    storage: str | None = None
    """PostgreSQL server that stores the record instead of study.db, for example postgresql://user@host/database. Put
    the password into PGPASSWORD or ~/.pgpass."""
    address: str | None = None
    """Ray cluster to join instead of starting Ray on this machine: auto, or host:port of the head node. docs/cluster.md
    explains it."""

    def __post_init__(self) -> None:
        """Check every field; nothing on disk is touched."""
        super().__post_init__()
        if self.epochs is None:
            object.__setattr__(self, "epochs", self.task.default_epochs)
        for option in ("num_samples", "epochs", "cpus_per_trial", "grace_period", "max_concurrent"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"{option} must be >= 1, got {getattr(self, option)}")
        if self.reduction_factor < 2:
            raise ValueError(f"reduction_factor must be >= 2, got {self.reduction_factor}")
        if self.epochs is not None and self.grace_period > self.epochs:
            raise ValueError(f"grace_period must be at most epochs, {self.epochs}, got {self.grace_period}")
        if not 0 <= self.gpus_per_trial < float("inf"):
            raise ValueError(f"gpus_per_trial must be >= 0, got {self.gpus_per_trial}")
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial above 1 must be a whole number, got {self.gpus_per_trial}")
        if self.max_failures < 0:
            raise ValueError(f"max_failures must be >= 0, got {self.max_failures}")
        if self.address is not None and not re.fullmatch(r"auto|[^\s/@]+:\d+", self.address):
            raise ValueError(f"address must be auto or host:port, got {self.address!r}")
        self._check_types()
        check_network(self.network)
        object.__setattr__(self, "network", absolute_import_path(self.network))  # workers run in folders of their own
        if isinstance(self.space, Path) and not self.space.is_file():
            raise ValueError(f"there is no file {self.space} to read the search space from")
        _ = self.trial_timeout_seconds, self.time_budget_seconds, self.dashboard_linger_seconds, self.confirm_size
        _ = self.memory_per_trial_mb, self.node_labels
        check_choice("sampler", self.sampler, SamplerName)
        check_choice("scheduler", self.scheduler, SchedulerName)
        check_seed("seed", self.seed)
        check_seed("the last trial's seed", self.seed + self.num_samples - 1)
        if self.checkpoints_dir is not None:
            check_store_address(self.checkpoints_dir)
        self._check_combinations()
        self._check_task()
        self._check_log()
        self._check_folders()

    def _check_types(self) -> None:
        """Refuse what a Python program passes instead of a path, such as a function of a notebook."""
        for name in ("network", "train_function"):
            path = getattr(self, name)
            if not isinstance(path, str | None):
                rule = "must be a name or an import path as text, for example file.py:function"
                raise ValueError(f"{name} {rule}, got {type(path).__name__}; only run_search takes a function")
        for name in ("command", "parse"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be a text, got {type(getattr(self, name)).__name__}")
        if not isinstance(self.warm_start, tuple):
            kind = type(self.warm_start).__name__
            raise ValueError(f"warm_start must be a tuple of studies, for example ('latest',), got {kind}")
        if not isinstance(self.space, Path | Mapping | None):
            raise ValueError(f"space must be a pathlib.Path of a file or a dictionary, got {type(self.space).__name__}")

    @property
    def task(self) -> Task:
        """What the trials train, as far as the settings say it; a study's record knows more."""
        return choose_task(
            network=self.network,
            dataset=self.dataset,
            train_function=self.train_function,
            command=self.command,
            imported=self.imported,
            parse=self.parse,
            metric=self.metric_name,
            epochs=self.epochs,
        )

    @property
    def metric_name(self) -> str:
        """The chosen metric, or the default metric for this validation fraction."""
        return self.metric or ("val_accuracy" if self.val_fraction > 0 else "test_accuracy")

    @property
    def direction(self) -> Mode:
        """Whether the metric is maximised or minimised."""
        return self.mode or derived_mode(self.metric_name) or "max"

    @property
    def trial_timeout_seconds(self) -> float | None:
        """Seconds that a trial may take."""
        return _seconds("trial_timeout", self.trial_timeout)

    @property
    def time_budget_seconds(self) -> float | None:
        """Seconds that this session of the study may take."""
        return _seconds("time_budget", self.time_budget)

    @property
    def memory_per_trial_mb(self) -> float | None:
        """Megabytes of a million bytes that are reserved for a trial; None if nothing is."""
        if self.memory_per_trial is None:
            return None
        number = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)(MB|GB|TB|MiB|GiB|TiB)", self.memory_per_trial, re.ASCII)
        if number is None or not float(number[1]):
            raise ValueError(f"memory_per_trial must be a size like 800MB or 4GB, got {self.memory_per_trial}")
        return float(number[1]) * MEGABYTES[number[2]]

    @property
    def node_labels(self) -> dict[str, str]:
        """The labels that a node must have."""
        labels = dict(label.partition("=")[::2] for label in self.node_label)
        if len(labels) < len(self.node_label) or not all(map(_LABEL.fullmatch, self.node_label)):
            raise ValueError(
                "node_label must be one or several KEY=VALUE of letters, digits, dots, dashes, underscores and, in a "
                f"key, slashes; each key once, got {' '.join(self.node_label)}"
            )
        return labels

    @property
    def dashboard_linger_seconds(self) -> float:
        """Seconds that the dashboard stays open after the study."""
        return _seconds("dashboard_linger", self.dashboard_linger) or 0.0

    @property
    def confirm_size(self) -> tuple[int, int] | None:
        """Numbers of configurations and seeds in `confirm`; None without `confirm`."""
        if self.confirm is None:
            return None
        numbers = re.fullmatch(r"(\d{1,18})x(\d{1,18})", self.confirm)
        if numbers is None:
            raise ValueError(
                f"confirm must be two numbers, configurations x seeds, for example 3x5, got {self.confirm}"
            )
        if self.metric_name.startswith("test_"):
            raise ValueError(
                f"confirm needs a metric of validation data, got {self.metric_name}: the test data would choose; with "
                "images, val_fraction must be above 0"
            )
        top, seeds = int(numbers[1]), int(numbers[2])
        check_size(top, seeds)
        return top, seeds

    def _check_combinations(self) -> None:
        """Refuse options without those that they need."""
        if self.resume_existing and (self.name is None or self.resume is not None):
            raise ValueError("resume_existing needs name, and not resume")
        if self.accept_changes and self.resume is None:
            raise ValueError("accept_changes needs resume, which names the study to continue")
        if self.fork and self.resume is None and not self.warm_start:
            raise ValueError("fork needs resume, which names the study to fork")
        if self.node_label and self.address is None:
            raise ValueError("node_label needs address: without a cluster, this machine runs all trials")
        if self.open_dashboard and not self.dashboard:
            raise ValueError("open_dashboard needs the dashboard: leave no-dashboard out")
        if self.prior and self.sampler != "gp":
            raise ValueError(f"prior needs sampler gp, got {self.sampler}")
        if not self.full_baseline and self.scheduler != "promotion":
            raise ValueError(f"no-full-baseline needs scheduler promotion, got {self.scheduler}")

    def _check_task(self) -> None:
        """Check what the kind of training needs, and store what it derives from the settings."""
        mode = self.task.checked_mode(self.metric, self.mode, self.val_fraction)
        if self.train_function is not None:
            object.__setattr__(self, "train_function", absolute_import_path(self.train_function))
        object.__setattr__(self, "mode", mode)  # the record holds what the name of the metric says today

    def _check_log(self) -> None:
        for logger in self.log:
            check_choice("log", logger, LoggerName)
        if len(set(self.log)) < len(self.log):
            raise ValueError(f"log must name each tool only once, got {' '.join(self.log)}")
        if self.mlflow_uri is not None and "mlflow" not in self.log:
            raise ValueError("mlflow_uri needs log mlflow")

    def _check_folders(self) -> None:
        refuse_address(self.results_dir)
        if self.results_dir.exists() and not self.results_dir.is_dir():
            raise ValueError(f"results_dir must be a folder, got {self.results_dir}")
        if self.name is None:
            return
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise ValueError(
                "name must be 1 to 100 letters, digits, dots, dashes and underscores, "
                f"beginning with a letter or digit, got {self.name!r}"
            )
        if self.name == "latest" or (self.resume is None and (self.results_dir / self.name).exists()):
            raise ValueError(f"name {self.name} is taken: {self.results_dir / self.name}")


def is_address(text: str) -> bool:
    """Whether a text is the address of an object store instead of the path of a folder."""
    return "://" in text


def refuse_address(results_dir: Path) -> None:
    """Raise a ValueError if the folder of all studies is the address of a store, as a path."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(results_dir)):
        raise ValueError(f"results_dir must be a folder of this machine, where the records are, got {results_dir}")


def check_store_address(address: str) -> None:
    """Raise a ValueError unless this is the address of an object store, without a user, a password or a key."""
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([^/?#\s]+)([^?#\s]*)(?:\?([^#\s]*))?", address)
    if match is None or match[1] in NO_STORES:
        shown = address if "@" not in address else f"{address.partition('://')[0]}://***"
        raise ValueError(f"checkpoints_dir must be an address like s3://bucket/path, got {shown}")
    scheme, host, path, query = match[1], match[2], match[3], match[4] or ""
    has_user = "@" in host + path if scheme in ("s3", "gs", "gcs") else re.search(":.*@", host + path)
    secret = re.search(r"(?:^|&)([^=&]*(?:key|secret|password|token|sig)[^=&]*)=", query, re.IGNORECASE)
    if has_user or secret or (scheme in ("s3", "gs", "gcs") and ":" in host):
        what = f"no {secret[1]}" if secret else "no user, password or port"
        raise ValueError(
            f"checkpoints_dir must have {what}, because the record stores it: credentials come from the environment, "
            f"for example AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; got {scheme}://***"
        )


def check_size(top: int, seeds: int) -> None:
    """Raise a ValueError if there are too few or too many configurations or seeds to confirm."""
    if top < 1:
        raise ValueError(f"top must be >= 1, got {top}")
    if seeds < 2:
        raise ValueError(f"seeds must be >= 2, because one number has no standard deviation, got {seeds}")
    if top * seeds > 10_000:
        raise ValueError(f"top x seeds must be at most 10000, got {top * seeds} trainings")


def _seconds(option: str, duration: str | None) -> float | None:
    if duration is None:
        return None
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|d)", duration), {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if number is None:
        raise ValueError(f"{option} must be a time like 90s, 10m, 1.5h or 2d, got {duration}")
    seconds = float(number[1]) * unit[number[2]]
    if not SHORTEST_TIME <= seconds <= LONGEST_TIME:
        raise ValueError(f"{option} must be between {SHORTEST_TIME} and {LONGEST_TIME} seconds, got {duration}")
    return seconds
