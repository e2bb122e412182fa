"""Runs the trainings of a task: what is checked and loaded before the first trial, and how one trial is trained."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from search.engine.command_training import train_by_command
from search.engine.custom_training import train_custom, train_images
from search.engine.function_call import check_call, takes_seed
from search.engine.reporter import Report
from search.engine.shared_data import SharedData, load_shared_data
from search.engine.time_limit import Publish, ending_process, time_limit
from search.record.trial import Objective
from search.settings import StudySettings
from search.space.search_space import SearchSpace, is_boolean
from search.task.image_task import ImageTask
from search.task.own_task import FunctionTask, ProgramTask
from search.task.task import Task
from training.checkpoint import Checkpoint
from training.config import NETWORKS, TrialConfig
from training.config_fields import make_config
from training.images.image_data import ImageData, load_data
from training.loop import check_step
from training.networks.networks import build_network

KindOfTask = TypeVar("KindOfTask", bound=Task)


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """What a runner gets to train one trial."""

    number: int
    """Number of the trial."""
    hyperparameters: Mapping[str, Any]
    """Searched and fixed ones."""
    seed: int
    objective: Objective
    checkpoint: Checkpoint
    report: Report
    """Receives the metrics of each epoch; what it raises ends the training."""
    images: ImageData | None = None
    """What `Runner.load_images` loaded."""
    shared_data: SharedData | None = None
    """What `Runner.load_shared_data` loaded."""
    threads: int
    """Threads of a program; those of torch in this process are set already."""
    device: str = "cpu"
    """Device of a network that the image training builds, `cpu` or `cuda`."""
    timeout: float | None = None
    """Seconds after which the training ends, and with it this process; None for never."""
    publish: Publish = None
    """Makes a file in a folder of the trial known to the driver; None if it sees these folders."""
    in_worker: bool = False
    """Whether this process is a worker, which ends if the training goes on after its end."""


class Runner(ABC, Generic[KindOfTask]):
    """Runs the trainings of a task."""

    def __init__(self, task: KindOfTask) -> None:
        self.task = task

    def check(self, space: SearchSpace | None, *, confirms: bool) -> None:
        """Check before anything is loaded that the training can be called.

        Args:
            space: The search space of a new study; None if the study is resumed.
            confirms: Whether the best configurations are to be confirmed.

        Raises:
            ValueError: It cannot be.
        """

    def check_trial(self, hyperparameters: Mapping[str, Any], seed: int) -> None:
        """Raise a ValueError if a recorded trial cannot be trained any more."""

    def load_images(self, settings: StudySettings) -> tuple[ImageData | None, str | None]:  # noqa: ARG002
        """Load the images of the study, if it has any; returns them with a warning."""
        return None, None

    def load_shared_data(self, seed: int) -> SharedData | None:  # noqa: ARG002
        """Load the data that a training function shares among trials; None if there are none."""
        return None

    def takes_seed(self, names: Collection[str]) -> bool:  # noqa: ARG002
        """Whether the training has a place for its seed, with hyperparameters of these names."""
        return self.task.takes_new_seeds

    @abstractmethod
    def train(self, run: TrialRun) -> None:
        """Train one trial, and report each epoch."""


class ImageRunner(Runner[ImageTask]):
    """Trains a network to classify images."""

    def check_trial(self, hyperparameters: Mapping[str, Any], seed: int) -> None:
        """Raise a ValueError if the network does not take the hyperparameters any more."""
        self._config(hyperparameters, seed)

    def load_images(self, settings: StudySettings) -> tuple[ImageData | None, str | None]:
        """Load the images, and check that the network takes them."""
        data, warning = load_data(settings, settings.seed)
        network, shape, classes = self.task.network, data.image_shape, len(data.classes)
        model = build_network(self.task.config_type()(network=network), shape, classes)
        if network not in NETWORKS:
            check_step(network, model, shape, classes)
        return data, warning

    def train(self, run: TrialRun) -> None:
        """Train one network on the device of the run."""
        assert run.images is not None, "the data of an image classification"
        with time_limit(run.timeout, run.checkpoint.file, run.publish):
            train_images(
                self._config(run.hyperparameters, run.seed),
                run.images.to(run.device),
                objective=run.objective,
                checkpoint=run.checkpoint,
                report=run.report,
            )

    def _config(self, hyperparameters: Mapping[str, Any], seed: int) -> TrialConfig:
        config: TrialConfig = make_config(self.task.config_type(), {**self.task.fixed, **hyperparameters, "seed": seed})
        return config


class FunctionRunner(Runner[FunctionTask]):
    """Calls a training function."""

    def check(self, space: SearchSpace | None, *, confirms: bool) -> None:  # noqa: ARG002
        """Check that the function takes the points of the space."""
        if space:
            check_call(self.task.path, space, self.task.epochs)

    def load_shared_data(self, seed: int) -> SharedData | None:
        """Call the function `load` beside the training function."""
        return load_shared_data(self.task.path, seed)

    def takes_seed(self, names: Collection[str]) -> bool:
        """Whether the function has a place for its seed."""
        return takes_seed(self.task.path, names)

    def train(self, run: TrialRun) -> None:
        """Call the function."""
        with time_limit(run.timeout, run.checkpoint.file, run.publish):
            train_custom(
                self.task.path,
                run.hyperparameters,
                number=run.number,
                epochs=self.task.epochs,
                seed=run.seed,
                objective=run.objective,
                checkpoint=run.checkpoint,
                report=run.report,
                data=run.shared_data,
                on_refused=ending_process(run.checkpoint.folder, run.publish) if run.in_worker else None,
            )


class ProgramRunner(Runner[ProgramTask]):
    """Runs a program."""

    def check(self, space: SearchSpace | None, *, confirms: bool) -> None:
        """Check that the program is there, and that its command takes the hyperparameters of the space."""
        command = self.task.template
        command.check_program()
        if confirms:
            command.check_takes_seed()
        if space:
            booleans = {name: is_boolean(space, name) for name in space.order}
            command.check_names(booleans, has_limit=self.task.epochs is not None)

    def check_trial(self, hyperparameters: Mapping[str, Any], seed: int) -> None:  # noqa: ARG002
        """Raise a ValueError if the program is missing."""
        self.task.template.check_program()

    def train(self, run: TrialRun) -> None:
        """Run the program."""
        train_by_command(
            self.task.command,
            run.hyperparameters,
            pattern=self.task.parse,
            epochs=self.task.epochs,
            seed=run.seed,
            threads=run.threads,
            timeout=run.timeout,
            objective=run.objective,
            checkpoint=run.checkpoint,
            report=run.report,
        )


_RUNNERS: dict[type[Task], type[Runner[Any]]] = {
    ImageTask: ImageRunner,
    FunctionTask: FunctionRunner,
    ProgramTask: ProgramRunner,
}


def runner_of(task: Task) -> Runner[Any]:
    """The runner of a task; in the engine, this is the only place where the kind of training matters."""
    return _RUNNERS[type(task)](task)
