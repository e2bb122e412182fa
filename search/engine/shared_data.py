"""The data that all trials of a training function share: loaded once, and read by each trial without a copy."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.cloudpickle import CloudPickler
from ray.util import register_serializer

from search.engine.function_call import LOADER, find_loader
from search.engine.reporter import Report
from search.space.objective_space import OPTION
from search.task.custom_metrics import CustomMetrics
from training.config import is_passed_function
from training.random_state import seeded
from training.user_code import errors_as_sentences, load_function, running


@dataclass(frozen=True, eq=False)
class SharedData:
    """What `load` returned, with the import path of the training function to which it belongs."""

    import_path: str
    value: Any
    tensors: Sequence[torch.Tensor]
    """The tensors in it; unlike arrays, they can be changed in place, and so can what other processes read of them."""
    is_changed: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.bool))
    """Whether a trial has changed them: another one, which reads them in the same memory, reads this there, too."""
    _versions: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note the number of changes that each tensor has seen by now."""
        object.__setattr__(self, "_versions", [tensor._version for tensor in self.tensors])

    def __reduce__(self) -> tuple[Any, ...]:
        # in this order: the user's module is imported before the objects of its classes are read
        return SharedData._restore, (_Module(self.import_path), self.is_changed, self.value)

    @staticmethod
    def _restore(import_path: str, is_changed: torch.Tensor, value: Any) -> "SharedData":
        tensors = [tensor for tensor in _read if tensor is not is_changed]
        _read.clear()
        return SharedData(import_path, value, tensors, is_changed)

    def check(self) -> None:
        """Check that no trial has changed a tensor in place.

        Raises:
            ValueError: One has, so that all trials that read it now get other numbers.
        """
        if self._versions != [tensor._version for tensor in self.tensors]:
            self.is_changed[:] = True
        if self.is_changed:
            raise ValueError(
                f"the training has changed a tensor of {LOADER}() in place, which all trials read: change a copy of "
                "it, which its method clone() makes, and search again"
            )

    def checked_before(self, report: Report) -> Report:
        """A function that reports, if the check is passed."""

        def check_and_report(metrics: CustomMetrics, *, is_last: bool) -> None:
            self.check()
            report(metrics, is_last=is_last)

        return check_and_report


_read: list[torch.Tensor] = []
"""Tensors that this process has read in place, of shared data that is not complete yet."""


@dataclass(frozen=True)
class _Module:
    """The module of a training function, which is imported when this is read."""

    import_path: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _import_module, (self.import_path,)


def _import_module(import_path: str) -> str:
    if not is_passed_function(import_path):  # then Ray sends what the objects need with them
        load_function(OPTION, import_path)
    return import_path


def load_shared_data(import_path: str, seed: int) -> SharedData | None:
    """Call the function `load` beside a training function that has a parameter `data`.

    Args:
        import_path: Import path of the training function.
        seed: The random generators of Python, NumPy and torch start from it, so that a random split is always the same.

    Returns:
        The data; None if the function has no such parameter, or if there is no `load`.

    Raises:
        ValueError: It raises an error, needs arguments, or returns what cannot be passed to other processes.
    """
    load = find_loader(import_path)
    if load is None:
        return None
    failure = f"{OPTION} {import_path}: the function {LOADER} beside it fails"
    with running(OPTION, import_path), seeded(seed):
        with errors_as_sentences(failure):
            data = load()
        with errors_as_sentences(f"{OPTION} {import_path}: trials cannot receive what the function {LOADER} returns"):
            probe = _Probe(_Nowhere(), buffer_callback=lambda _: False)
            probe.dump(data)
    return SharedData(import_path, data, probe.tensors)


class _Nowhere:
    def write(self, content: bytes) -> int:
        return len(content)


class _Probe(CloudPickler):  # type: ignore[misc]
    """Pickles as Ray does, but leaves out the numbers of arrays and tensors, so that it copies no large data."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tensors: list[torch.Tensor] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor) and not obj.is_inference():  # such a one does not count its changes
            self.tensors.append(obj)
        if isinstance(obj, torch.Tensor) or (isinstance(obj, np.ndarray) and obj.dtype != object):
            return int, ()
        return super().reducer_override(obj)


def pass_tensors_without_copy() -> None:
    """Let Ray's object store pass tensors as NumPy arrays, which each worker reads in place; Ray must be connected."""
    register_serializer(torch.Tensor, serializer=_to_array, deserializer=_from_array)


def _to_array(tensor: torch.Tensor) -> tuple[np.ndarray[Any, Any], str, tuple[int, ...]]:
    data = tensor.detach().cpu().contiguous()
    return data.reshape(-1).view(torch.uint8).numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def _from_array(stored: tuple[np.ndarray[Any, Any], str, tuple[int, ...]]) -> torch.Tensor:
    array, dtype, shape = stored
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        data = torch.from_numpy(array) if array.size else torch.empty(0, dtype=torch.uint8)
    tensor = data.view(getattr(torch, dtype)).reshape(shape)
    _read.append(tensor)
    return tensor
