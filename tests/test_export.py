"""The export to ONNX: the same probabilities from pixels, checked before the file is there."""

import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

import make_json_schema
import pytest
import torch
from test_model_folder import model_metadata

from training import export as command
from training.config import PROJECT
from training.console.json_output import objects_written_to
from training.images.image_data import ImageData
from training.loop import Training
from training.model.model_folder import load_model, save_model
from training.networks.network_config import config_type


@pytest.fixture
def model(request: pytest.FixtureRequest, digits: ImageData, tmp_path: Path) -> Path:
    config = config_type(request.param)(network=request.param)
    described = model_metadata(digits, network=request.param, background="dark")
    save_model(tmp_path / "model", Training(config, digits).model.state_dict(), described)
    return tmp_path / "model"


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["training/export.py", *map(str, words)])
    try:
        return command.main()
    except SystemExit as end:
        return int(str(end.code))


def test_option_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run(monkeypatch, "model"), run(monkeypatch)) == (2, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: --onnx is missing; --help explains it"
    assert second == "error: MODEL and --onnx are missing; --help explains it"


@pytest.mark.parametrize("model", ["mlp", "cnn"], indirect=True)
def test_exported_model_gives_the_same_probabilities_from_pixels(
    model: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = model.parent / "model.onnx"
    stream = io.BytesIO()
    with mock.patch.object(stream, "close"), objects_written_to(stream):
        assert run(monkeypatch, model, "--onnx", file, "--json") == 0
    exported = make_json_schema.adapter().validate_json(stream.getvalue(), strict=True, extra="forbid")
    assert (exported.onnx, exported.image_shape, exported.classes) == (str(file), [1, 8, 8], list(digits.classes))
    assert "images, uint8 (N, 1, 8, 8) -> probabilities, float32 (N, 10)" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["classes"].splitlines() == list(digits.classes)
    assert (metadata["background"], metadata["pixels"]) == ("dark", "grey")
    for images in (digits.test.images, digits.test.images[:1]):
        (probabilities,) = session.run(None, {"images": images.numpy()})
        assert torch.from_numpy(probabilities).sub(load_model(model).predict(images)).abs().max() <= 1e-5
    assert str(PROJECT).encode() not in file.read_bytes()  # no trace of where it was made


@pytest.mark.parametrize("model", ["mlp"], indirect=True)
def test_network_that_comes_out_different_leaves_no_file(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(command, "TOLERANCE", -1.0)
    assert run(monkeypatch, model, "--onnx", model.parent / "model.onnx") == 2
    assert "gives other probabilities than PyTorch" in capsys.readouterr().err
    assert [file.name for file in model.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("model", ["mlp"], indirect=True)
def test_mistakes_are_one_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    assert run(monkeypatch, model.parent, "--onnx", model.parent / "model.onnx") == 2
    assert capsys.readouterr().err == f"error: {model.parent} is not the folder of a model: it has no config.json\n"
    assert run(monkeypatch, model, "--onnx", model.parent / "nowhere" / "model.onnx") == 2
    assert capsys.readouterr().err == f"error: there is no folder {model.parent / 'nowhere'}\n"


def test_missing_packages_are_named_without_a_checkout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("IS_INSTALLED", True), ("find_spec", lambda _: None)):
        monkeypatch.setattr(command, name, value)
    assert run(monkeypatch, Path("model"), "--onnx", "file") == 2
    sentence = "the export needs onnx, onnxscript, onnxruntime: pip install onnx onnxscript onnxruntime"
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_missing_packages_are_named_with_the_command_that_brings_them() -> None:
    script = PROJECT / "training" / "export.py"
    hidden = "import importlib.util as u, runpy, sys; found = u.find_spec; "
    hidden += "u.find_spec = lambda name, *rest: None if name == 'onnxruntime' else found(name, *rest) or 1; "
    hidden += f"sys.argv = ['export.py', 'model', '--onnx=file']; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("error: the export needs onnxruntime: pip install --constraint constraints.txt '.[onnx]'\n")
