"""The result of a confirmation: the best configurations measured over new seeds, the winner, and its model."""

from dataclasses import dataclass

from search.record.configuration import Configuration, Difference, difference
from search.record.estimate import FEWEST_SEEDS
from training.metrics import accuracy_interval


@dataclass(frozen=True, kw_only=True)
class Final:
    """The winner, trained once on all training images and measured once on the test images."""

    trial: int
    """Number of the configuration in the study."""
    epochs: int
    seed: int
    training_images: int
    test_images: int
    test_accuracy: float
    test_loss: float
    seconds: float

    def __post_init__(self) -> None:
        """Refuse values that no training can measure."""
        numbers = (self.epochs, self.training_images, self.test_images)
        if not 0 <= self.test_accuracy <= 1 or min(self.test_loss, self.seconds) < 0 or min(numbers) < 1:
            raise ValueError(f"a final training cannot have measured {self}")

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the test accuracy on other images of the same kind."""
        return accuracy_interval(self.test_accuracy, self.test_images)


@dataclass(frozen=True, kw_only=True)
class BestTraining:
    """The best training of the winner, the model of which is used where no training on all data follows."""

    training: int
    """Number of its trial in the confirmation."""
    seed: int
    epoch: int
    """Its best epoch."""
    value: float
    """The metric of the study at this epoch."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The trainings of a confirmation: configurations from the same new seeds, then the winner from other seeds."""

    study: str
    top: int
    """Number of configurations that the user asked for; the study may have fewer."""
    trials: list[int]
    """Numbers of the configurations' trials in the study, the best first."""
    values: list[float]
    """The metric of each trial in the search."""
    seeds: list[int]
    """The seeds of the trainings that choose the winner."""
    winner_seeds: list[int]
    """The seeds of the trainings that measure the winner."""
    final_seed: int | None = None
    """The seed of the training on all images; None where no such training follows."""
    takes_seed: bool = True
    """Whether the training takes its seed as a value; otherwise only the random generators are seeded."""

    def __post_init__(self) -> None:
        """Refuse a plan that contradicts itself."""
        if not self.trials or len(self.trials) != len(self.values) or len(self.trials) > self.top:
            raise ValueError(f"trials {self.trials} cannot be the best {self.top}")
        seeds = [*self.seeds, *self.winner_seeds, *([] if self.final_seed is None else [self.final_seed])]
        if min(len(self.seeds), len(self.winner_seeds)) < FEWEST_SEEDS or len({*seeds}) < len(seeds):
            raise ValueError(f"seeds cannot be {seeds}")

    @property
    def choosing_trainings(self) -> int:
        """Number of trainings that choose the winner."""
        return len(self.trials) * len(self.seeds)

    @property
    def all_trainings(self) -> int:
        """Number of trainings that choose the winner or measure it."""
        return self.choosing_trainings + len(self.winner_seeds)


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The result of a confirmation, as the record of the study stores it."""

    configurations: list[Configuration]
    """The configurations and the trainings that chose among them, the winner first; all have the same metric."""
    confirmed: Configuration
    """The winner, measured from seeds that chose nothing."""
    final: Final | None = None
    best: BestTraining | None = None
    """Only where no training on all data follows."""
    takes_seed: bool = True
    """As in the plan."""

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        if (self.final is None) == (self.best is None):
            raise ValueError("a confirmation has either a training on all images or a best training")
        if not self.configurations or not self.winner.is_measured:
            raise ValueError("a confirmation has no winner")
        if len({one.metric_name for one in [*self.configurations, self.confirmed]}) > 1:
            raise ValueError("a confirmation is of several metrics")
        parts = {(part.trial, part.epochs) for part in (self.winner, self.confirmed, self.final) if part}
        if len(parts) > 1:
            raise ValueError("what was confirmed and trained at last was not the winner")

    @property
    def winner(self) -> Configuration:
        """The chosen configuration."""
        return self.configurations[0]

    @property
    def varies(self) -> bool:
        """Whether trainings of one configuration from different seeds measured different values."""
        return any(one.varies for one in [*self.configurations, self.confirmed])

    @property
    def first_two(self) -> Difference | None:
        """How much better the winner is than the second configuration; None if there is no second one."""
        measured = [one for one in self.configurations if one.is_measured]
        return difference(*measured[:2]) if len(measured) > 1 else None
