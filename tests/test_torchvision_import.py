import importlib
import sys
from types import ModuleType

import pytest
import torch

from training.images import torchvision_import


def test_data_sets_can_be_imported_whatever_torchvision_was_built_for() -> None:
    assert hasattr(torchvision_import.import_torchvision_datasets(), "FashionMNIST")


def test_schemas_are_declared_only_for_the_error_they_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        raise RuntimeError("something else is wrong")

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(torchvision_import, "_library", None)
    with pytest.raises(RuntimeError, match="something else is wrong"):
        torchvision_import.import_torchvision_datasets()
    assert torchvision_import._library is None


def test_missing_operators_are_declared_and_the_import_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    attempts: list[str] = []

    class Library:
        def __init__(self, namespace: str, kind: str) -> None:
            assert (namespace, kind) == ("torchvision", "DEF")

        def define(self, schema: str) -> None:
            declared.append(schema.partition("(")[0])

    def import_module(name: str) -> ModuleType:
        attempts.append(name)
        if len(attempts) == 1:
            sys.modules["torchvision.half_imported"] = ModuleType("torchvision.half_imported")
            raise RuntimeError("operator torchvision::nms does not exist")
        assert "torchvision.half_imported" not in sys.modules
        return ModuleType(name)

    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "torchvision"}
    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(torchvision_import, "_library", None)
    torchvision_import.import_torchvision_datasets()
    assert attempts == ["torchvision.datasets"] * 2
    assert declared == ["nms", "qnms"]
    sys.modules.update(kept)
