"""The checkpoints and the folders of the trials of a study: where they are, and which of them stay."""

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from search.record.checkpoint_store import CheckpointStore
from search.record.file_names import CHECKPOINTS, TRIALS
from search.record.study_store import StudyStore
from training.checkpoint import best_files, remove


class StudyCheckpoints:
    """Knows the checkpoints of a study, in its folder or in a store; trials are known by their numbers."""

    def __init__(self, folder: Path) -> None:
        """Know those in the folder of the study."""
        self._folder = folder
        self.store: StudyStore | None = None
        """The store of the checkpoints; None if the study's folder has them, or if this process does not run it."""
        self._uncleared: set[int] = set()
        """The ended trials whose checkpoints may be in the store."""

    def use_store(self, store: CheckpointStore, ended: Collection[int]) -> None:
        """Use the store of the study, because this process runs the study or brings its results back.

        Args:
            store: The study's folder in the store.
            ended: The trials that have ended, whose checkpoints may still be there.
        """
        self.store = StudyStore(store, self._folder)
        self._uncleared = {*ended}

    def file(self, number: int) -> Path:
        """The file after which those of a trial's checkpoint are named; a worker goes on from them."""
        return self._folder / CHECKPOINTS / f"{_stem(number)}.pt"

    def trial_folder(self, number: int) -> Path:
        """The folder of a trial of a training function."""
        return self._folder / TRIALS / f"{number:04}"

    def is_there(self, number: int) -> bool:
        """Whether there is a state from which a trial continues; without one it starts again."""
        file = self.file(number)
        if self.store:
            return self.store.has_checkpoint(file.stem)
        return any(map(any, (file.with_suffix("").glob("*"), file.parent.glob(f"{file.stem}-last-*"))))

    def clear(self, ended: Collection[int], *, kept: Collection[int], open_trials: Collection[int]) -> None:
        """Remove the checkpoints of ended trials but for what is kept.

        Args:
            ended: The trials that have ended just now.
            kept: The trials whose best epoch is kept.
            open_trials: The trials that may continue.
        """
        if self.store:
            self._uncleared |= {*ended}
            self._uncleared -= {*open_trials}
            self.store.begin_to_clear([*map(_stem, self._uncleared)], [*map(_stem, kept)])
            self._uncleared = {*kept}
        files = [self.file(number) for number in kept]
        names = {path.name for file in files for path in best_files(file)} | {file.stem for file in files}
        unfinished = {*map(_stem, open_trials)}
        for file in (self._folder / CHECKPOINTS).glob("trial-*"):
            if file.name not in names and re.split(r"-epoch|-last|\.", file.name)[0] not in unfinished:
                with suppress(OSError):  # it only takes space
                    remove(file)

    def begin_to_fetch_folder(self, number: int) -> None:
        """Bring back what is new in the folder of a trial that has ended, if it is in a store."""
        if self.store:
            self.store.begin_to_fetch_folder(self.trial_folder(number))

    def finish(self, ended: Collection[int], kept: Collection[int]) -> None:
        """Bring back what stays of a study whose trials have ended: the kept epochs, and the folders of the trials."""
        if self.store:
            self.store.finish([*map(_stem, ended)], [*map(_stem, kept)])

    def close(self) -> None:
        """Wait for what has begun."""
        if self.store:
            self.store.close()


def _stem(number: int) -> str:
    """How the names of the checkpoints of a trial begin."""
    return f"trial-{number:04}"
