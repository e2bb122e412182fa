"""The task of a study that was imported: its trials are known, and nothing of their training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.task.own_task import OwnTask


@dataclass(frozen=True, kw_only=True)
class ImportedTask(OwnTask):
    """The trials were run by another program, of which only their hyperparameters and metrics were read."""

    program: str
    """The program that wrote them."""

    may_have_defaults = False
    saves_epochs = False

    @property
    def name(self) -> str:
        """Where the trials are from."""
        return f"imported from {self.program}"

    @property
    def imported_from(self) -> str:
        """The program that wrote the trials."""
        return self.program

    @property
    def option(self) -> str:
        """The setting that names the program."""
        return "imported"

    @property
    def fixed(self) -> dict[str, Any]:
        """Nothing is known of the training."""
        return {}

    @property
    def takes_new_seeds(self) -> bool:
        """Whether new seeds reach the training: there is none."""
        return False

    def check_can_train(self) -> None:
        """Raise a ValueError: there is no training."""
        raise ValueError(
            f"the study was {self.name}, and its training is not known here, so none of its trials can be trained; "
            "a new study can start from its trials with --warm-start"
        )

    def short_name(self, data_dir: Path) -> str:  # noqa: ARG002
        """The name with which that of a study begins."""
        return "imported"

    def config_type(self) -> None:
        """No dataclass: the search space alone says what there is."""

    def checksums(self) -> dict[str, str]:
        """No checksums, because no code is known."""
        return {}
