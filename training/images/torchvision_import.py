"""Imports torchvision's data sets even where torch and torchvision were built for different devices."""

import importlib
import sys
from types import ModuleType

import torch

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_OPERATOR_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # the schemas live as long as this object


def import_torchvision_datasets() -> ModuleType:
    """Import `torchvision.datasets`.

    A torchvision wheel built for CUDA does not import beside a CPU-only torch: its compiled operators stay unloaded,
    and Python code that refers to two of them fails. Data sets need neither, so on exactly that error the two
    operators are declared without an implementation and the import is tried again.

    Returns:
        The module `torchvision.datasets`.
    """
    global _library  # noqa: PLW0603 - one registration per process is what torch allows
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error) or _library is not None:
            raise
    _library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATOR_SCHEMAS:
        _library.define(schema)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision.datasets")
