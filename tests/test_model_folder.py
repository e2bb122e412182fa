"""A model that was shipped: it loads without its study, exactly, or is refused in one sentence."""

import importlib.util
import json
import py_compile
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_report import trained_study

from search.analysis.findings import analyse
from search.outputs.best_model import exported_best, load_best
from search.outputs.error_analysis import analyse_errors
from search.outputs.model_export import export_model
from search.outputs.report_page import render
from search.record.lookup import check_code_named
from search.record.study_record import StudyRecord
from search.settings import StudySettings
from training.config import TrialConfig
from training.images.image_data import ImageData
from training.loop import Training
from training.metrics import accuracy_interval
from training.model.model_folder import CARD, CONFIG, WEIGHTS, load_model, read_metadata, save_model
from training.model.model_metadata import CODE, ModelMetadata
from training.networks.network_config import config_type
from training.program_files import checksum

SETTINGS = StudySettings(dataset="digits")
OWN_NETWORK = """
from dataclasses import dataclass
from pathlib import Path
from torch import nn

Path(__file__).with_name("was-run").touch()

@dataclass(frozen=True)
class Hyperparameters:
    units: int = 16

def build(config: Hyperparameters, input_shape, classes):
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, config.units), nn.ReLU(), nn.Linear(config.units, classes))
"""


def model_metadata(data: ImageData, network: str = "mlp", **changed: Any) -> ModelMetadata:
    some = ModelMetadata(
        network=network,
        network_hyperparameters={},
        image_shape=list(data.image_shape),
        classes=list(data.classes),
        dataset=data.name,
        dataset_sha256=data.sha256,
        training_images=len(data.train),
        validation_images=len(data.val),
        test_images=len(data.test),
        training={},
        epoch=1,
        selection="It was the only one.",
        val_accuracy=0.5,
        val_loss=1.0,
        test_accuracy=0.5,
        test_loss=1.0,
    )
    return replace(some, **changed)


@pytest.fixture(scope="module")
def shipped(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecord, Path]:
    record = trained_study(tmp_path_factory.mktemp("studies") / "study", digits)
    folder = export_model(record)
    assert folder is not None
    return record, folder


@pytest.fixture
def model(digits: ImageData, tmp_path: Path) -> Path:
    """A model that was not trained, to be damaged."""
    training = Training(config_type("mlp")(width=16), digits)  # type: ignore[call-arg]
    described = model_metadata(digits, network_hyperparameters={"width": 16})
    save_model(tmp_path / "model", training.model.state_dict(), described)
    return tmp_path / "model"


def test_shipped_model_gives_exactly_the_recorded_accuracy(
    shipped: tuple[StudyRecord, Path], digits: ImageData
) -> None:
    record, folder = shipped
    best = record.trials[0].best_epoch
    assert best is not None
    model = load_model(folder)
    for split, accuracy in ((digits.test, best.test_accuracy), (digits.val, best.val_accuracy)):
        right = (model.predict(split.images).argmax(1) == split.labels).sum().item()
        assert right / len(split) == accuracy
    told = model.metadata
    assert (told.test_accuracy, told.epoch, told.trial) == (best.test_accuracy, best.epoch, 0)
    assert told.classes == list(digits.classes)
    assert told.background == "dark"
    assert exported_best(record) == folder
    loaded = load_best(record.folder)
    model.network.load_state_dict(loaded.states["model"])
    config = record.metadata.trial_config(record.trials[0])
    assert (loaded.seed, loaded.epoch, loaded.hyperparameters["depth"]) == (config.seed, best.epoch, 2)


def test_report_says_how_the_model_is_used(shipped: tuple[StudyRecord, Path], tmp_path: Path) -> None:
    def page_of(record: StudyRecord) -> str:
        return render(record, analyse(record), "there are no images")

    record, folder = shipped
    section = page_of(record).partition("<h2>Exported model</h2>")[2]
    assert f"python training/predict.py {folder} IMAGE\npython training/export.py {folder} --onnx model.onnx" in section
    assert read_metadata(folder).selection in section
    damaged = copy(record)
    damaged.folder = tmp_path
    (tmp_path / folder.name).mkdir()
    (tmp_path / folder.name / CONFIG).write_text("[")
    assert "Exported model" not in page_of(damaged)


def test_probabilities_sum_to_one_and_other_images_are_refused(
    shipped: tuple[StudyRecord, Path], digits: ImageData
) -> None:
    model = load_model(shipped[1])
    probabilities = model.predict(digits.test.images[:7])
    assert probabilities.shape == (7, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(7))
    assert model.predict(digits.test.images[:0]).shape == (0, 10)
    with pytest.raises(ValueError, match=r"images must be uint8 \(N, 1 x 8 x 8\), got torch.uint8 \(2, 1, 9, 8\)"):
        model.predict(torch.zeros(2, 1, 9, 8, dtype=torch.uint8))


def test_study_that_was_just_run_under_a_name_is_shipped(tmp_path: Path, digits: ImageData) -> None:
    """Its settings name a folder that is there by now, and the card does not name that of the images."""
    settings = StudySettings(dataset="digits", name="study", results_dir=tmp_path, data_dir=tmp_path / "images")
    record = trained_study(tmp_path / "study", digits)
    record.metadata = replace(record.metadata, settings=settings)
    folder = export_model(record)
    assert folder is not None
    assert str(tmp_path) not in (folder / CARD).read_text() + (folder / CONFIG).read_text()


def test_card_says_what_a_user_must_know(shipped: tuple[StudyRecord, Path]) -> None:
    record, folder = shipped
    card = (folder / CARD).read_text()
    best = record.trials[0].best_epoch
    assert best is not None
    low, high = accuracy_interval(best.test_accuracy, 359)
    assert f"| test | {best.test_accuracy:.2%} | {low:.2%} to {high:.2%} |" in card
    for part in (
        "## Limits",
        "--invert",
        "python training/run.py --",
        "1,198 training",
        "highest val_accuracy",
    ):
        assert part in card


@pytest.mark.parametrize(
    ("right", "images", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_interval_is_the_published_one(right: int, images: int, low: float, high: float) -> None:
    """The last is the example of Newcombe 1998."""
    assert accuracy_interval(right / images, images) == pytest.approx((low, high), abs=1e-4)


def test_model_is_replaced_whole_and_a_link_in_its_place_is_not_followed(model: Path, digits: ImageData) -> None:
    elsewhere = model.parent / "elsewhere"
    model.rename(elsewhere)
    before = sorted((file.name, file.read_bytes()) for file in elsewhere.iterdir())
    for link in (model, model.with_name(".model.draft"), model.with_name(".model.old")):
        link.symlink_to(elsewhere)
    weights = Training(TrialConfig(seed=1), digits).model.state_dict()
    save_model(model, weights, model_metadata(digits))
    assert not model.is_symlink()
    assert sorted(file.name for file in model.iterdir()) == sorted([CARD, CONFIG, WEIGHTS])
    assert sorted((file.name, file.read_bytes()) for file in elsewhere.iterdir()) == before
    assert sorted(file.name for file in model.parent.iterdir()) == ["elsewhere", "model"]


def test_weights_of_another_network_are_not_shipped_and_the_old_ones_stay(model: Path, digits: ImageData) -> None:
    before = (model / WEIGHTS).read_bytes()
    with pytest.raises(ValueError, match="does not hold the weights of the network"):
        save_model(model, Training(TrialConfig(), digits).model.state_dict(), model_metadata(digits, network="cnn"))
    assert (model / WEIGHTS).read_bytes() == before
    assert [file.name for file in model.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("odd", [torch.zeros(1).expand(10**13), torch.eye(3).to_sparse(), 3])
def test_weights_that_are_no_plain_numbers_are_refused_before_they_take_memory(
    odd: Any, model: Path, digits: ImageData
) -> None:
    with pytest.raises(ValueError, match=r"the weights cannot be saved: \w+: "):
        save_model(model, {"weight": odd}, model_metadata(digits))
    assert load_model(model)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"format": 2}, "its format is 2, but this version reads only format 1"),
        ({"network": "rnn"}, "network cannot be rnn"),
        ({"network": "evil.py:build"}, "network cannot be evil.py:build"),
        (
            {"network_hyperparameters": {"width": "wide"}},
            "a network: width must be a whole number, got wide",
        ),
        ({"network_hyperparameters": {"height": 3}}, "does not describe a network: height is unknown"),
        ({"network_hyperparameters": {"width": 10**15}}, "another network|cannot be loaded"),
        ({"network_hyperparameters": {"width": 10**30}}, "another network|cannot be loaded"),
        ({"network_hyperparameters": {"width": 16, "depth": 10**12}}, "depth is larger than"),
        ({"image_shape": [1, 4096, 4096]}, "does not hold the weights of the network"),
        ({"image_shape": [1, 10**9, 10**9]}, "image_shape cannot be"),
        ({"classes": [str(number) for number in range(10**5)]}, "does not hold the weights of the network"),
        ({"network": "cnn", "network_hyperparameters": {"channels": 10**9}}, "another network|cannot be loaded"),
        ({"test_accuracy": 1.5}, r"an accuracy is not in \[0, 1\]"),
        ({"test_accuracy": None}, "test_accuracy cannot be None"),
        ({"pixels": "float"}, "pixels cannot be 'float'"),
        ({"surprise": 1}, "surprise is unknown"),
    ],
)
def test_absurd_description_is_one_sentence_and_takes_no_memory(
    model: Path, changed: dict[str, Any], sentence: str
) -> None:
    values = json.loads((model / CONFIG).read_text())
    (model / CONFIG).write_text(json.dumps(values | changed))
    with pytest.raises(ValueError, match=sentence):
        load_model(model)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"[" * 100_000, b'{"format": 1}', b"x" * (10**7 + 1)])
def test_damaged_description_is_one_sentence(model: Path, content: bytes) -> None:
    (model / CONFIG).write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json does not describe a model: .+"):
        load_model(model)
    (model / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"is not the folder of a model: it has no config\.json"):
        read_metadata(model)


@pytest.mark.parametrize("length", [0, 7, 100, 1000])
def test_damaged_weights_are_one_sentence(model: Path, length: int) -> None:
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:length])
    with pytest.raises(ValueError, match=r"the model in .* cannot be loaded: "):
        load_model(model)


def test_model_that_cannot_be_loaded_is_refused_in_one_short_line(digits: ImageData, tmp_path: Path) -> None:
    code = {CODE: OWN_NETWORK.encode()}
    described = replace(model_metadata(digits), network=f"{CODE}:build", network_sha256=checksum(code))
    deeper = Training(config_type("mlp")(depth=30), digits).model.state_dict()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^the model cannot be loaded: RuntimeError: Error") as refusal:
        save_model(tmp_path / "model", deeper, described, code)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 350


def test_weights_of_another_kind_are_refused(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    name, tensor = next(iter(weights.items()))
    save_file(weights | {name: tensor.double()}, model / WEIGHTS)
    with pytest.raises(ValueError, match=r"must be torch.float32, got torch.float64"):
        load_model(model)
    save_file(weights | {name: tensor * float("nan")}, model / WEIGHTS)
    with pytest.raises(ValueError, match="numbers that are not finite"):
        load_model(model)
    (model / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(model)


@pytest.fixture
def own_network(tmp_path: Path, digits: ImageData) -> tuple[StudyRecord, Path]:
    """A study of a network from a file."""
    file = tmp_path / "mine.py"
    file.write_text(OWN_NETWORK)
    record = trained_study(tmp_path / "study", digits, network=f"{file}:build")
    return record, file


def test_network_from_a_file_is_shipped_with_its_code_which_runs_only_when_trusted(
    own_network: tuple[StudyRecord, Path], digits: ImageData
) -> None:
    record, file = own_network
    folder = export_model(record)
    assert folder is not None
    assert (folder / CODE).read_text() == OWN_NETWORK
    values = json.loads((folder / CONFIG).read_text())
    assert values["network"] == "network.py:build"
    assert values["network_hyperparameters"] == {"units": 16}
    file.unlink()  # no longer needed
    with pytest.raises(ValueError, match=r"runs the Python code in .*network.py, .* read it, then add --trust-network"):
        load_model(folder)
    assert not (folder / "was-run").exists()
    model = load_model(folder, trust_network=True)
    assert (folder / "was-run").exists()
    right = (model.predict(digits.test.images).argmax(1) == digits.test.labels).sum().item()
    assert right / len(digits.test) == model.metadata.test_accuracy
    (folder / CODE).write_text(OWN_NETWORK + "\n# changed\n")
    with pytest.raises(ValueError, match="its checksum differs"):
        load_model(folder, trust_network=True)


ODD_NETWORKS = """
from pathlib import Path
import numpy as np
import torch
from torch import nn

class Masked(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(8))
        self.register_buffer("chosen", torch.log(torch.randint(0, 2, (inputs,)).float()))  # at random 0 or -inf
        self.register_buffer("unset", torch.full((), float("nan")))
        self.register_buffer("extremes", torch.tensor([float("inf"), float("-inf")]))
        self.projection = torch.from_numpy(np.random.randn(inputs, 16).astype("float32"))
        self.last = nn.Linear(16, classes)

    def forward(self, images):
        if self.training:
            self.extremes.copy_(torch.stack([images.min(), images.max()]))
        rows = images.flatten(1) * self.chosen.exp()
        return self.last(rows @ self.projection + self.mask.exp().sum())

def masked(config, input_shape, classes):
    return Masked(64, classes)

class Overflowing(Masked):
    def forward(self, images):
        self.extremes.fill_(0)
        self.mask.fill_(float("nan")) if self.training else None
        return self.last(images.flatten(1) @ self.projection)

def overflowing(config, input_shape, classes):
    return Overflowing(64, classes)

def reading(config, input_shape, classes):
    width = int(Path(__file__).with_name("width.txt").read_text())
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, classes))
"""


@pytest.fixture
def odd_networks(tmp_path: Path) -> Path:
    file = tmp_path / "odd.py"
    file.write_text(ODD_NETWORKS)
    return file


def test_numbers_that_are_not_finite_are_accepted_where_a_new_network_has_them(
    odd_networks: Path, tmp_path: Path, digits: ImageData
) -> None:
    """What a network draws beside its weights is that of its training, too."""
    record = trained_study(tmp_path / "study", digits, network=f"{odd_networks}:masked")
    folder = export_model(record)
    assert folder is not None
    model = load_model(folder, trust_network=True)
    right = (model.predict(digits.test.images).argmax(1) == digits.test.labels).sum().item()
    assert right / len(digits.test) == model.metadata.test_accuracy
    assert analyse_errors(record, digits).trial == 0
    weights = load_file(folder / WEIGHTS)
    for name, tensor in (("mask", weights["mask"].T), ("extremes", torch.full((2,), float("nan")))):
        save_file(weights | {name: tensor.contiguous()}, folder / WEIGHTS)
        with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
            load_model(folder, trust_network=True)


@pytest.mark.parametrize(("network", "sentence"), [("overflowing", "mask holds numbers"), ("reading", "width.txt")])
def test_model_that_would_not_load_is_not_shipped(
    odd_networks: Path, tmp_path: Path, digits: ImageData, network: str, sentence: str
) -> None:
    (tmp_path / "width.txt").write_text("16")
    record = trained_study(tmp_path / "study", digits, network=f"{odd_networks}:{network}")
    with pytest.raises(ValueError, match=sentence):
        export_model(record)
    assert exported_best(record) is None
    assert not list((tmp_path / "study").glob("*model*"))


def test_network_with_extra_state_is_shown_but_not_shipped(tmp_path: Path, digits: ImageData) -> None:
    file = tmp_path / "counting.py"
    file.write_text(
        "from torch import nn\n\n\nclass Counting(nn.Flatten):\n    seen = 0\n\n"
        "    def get_extra_state(self):\n        return {'seen': self.seen}\n\n"
        "    def set_extra_state(self, state):\n        self.seen = state['seen']\n\n\n"
        "def build(config, shape, classes):\n    return nn.Sequential(Counting(), nn.Linear(64, classes))\n"
    )
    record = trained_study(tmp_path / "study", digits, network=f"{file}:build")
    with pytest.raises(ValueError, match=r"0\._extra_state is a dict and no tensor"):
        export_model(record)
    assert analyse_errors(record, digits).trial == 0


def test_changed_network_is_not_shipped(own_network: tuple[StudyRecord, Path]) -> None:
    record, _ = own_network
    record.metadata = replace(record.metadata, code={str(record.metadata.task.network): "0" * 64})
    with pytest.raises(ValueError, match="has changed since the study was run"):
        export_model(record)


def test_network_of_a_record_is_run_only_when_named_again(own_network: tuple[StudyRecord, Path]) -> None:
    record, file = own_network
    settings = replace(SETTINGS, network=str(record.metadata.task.network))
    check_code_named("study", settings, {"--network": f"{file}:build"})
    with pytest.raises(ValueError, match=r"study study needs the code of .*mine.py:build: add --network"):
        check_code_named("study", settings, {"--network": None})
    with pytest.raises(ValueError, match=r"not other\.py:build"):
        check_code_named("study", settings, {"--network": "other.py:build"})


def test_model_that_was_not_kept_or_not_measured_is_not_shipped(tmp_path: Path, digits: ImageData) -> None:
    record = trained_study(tmp_path / "study", digits)
    (trial,) = record.trials
    assert trial.best_epoch is not None
    (file,) = (tmp_path / "study" / "checkpoints").glob("*-epoch-*.pt")
    trial.best_epoch = replace(trial.best_epoch, test_accuracy=0.999)
    with pytest.raises(ValueError, match="does not hold the weights of the epoch that was measured"):
        export_model(record)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        export_model(record)
    file.unlink()
    assert export_model(record) is None
    assert exported_best(record) is None
    assert not (tmp_path / "study" / "model").exists()


def test_code_that_was_added_to_a_model_is_not_run(own_network: tuple[StudyRecord, Path], tmp_path: Path) -> None:
    """Only what was read runs: no module beside it, none in a linked folder, no compiled code in its place."""
    folder = export_model(own_network[0])
    assert folder is not None
    for added in ("torch.py", "dataclasses.pyc", "pathlib/__init__.py"):
        (folder / added).parent.mkdir(exist_ok=True)
        (folder / added).write_text("raise SystemExit")
        with pytest.raises(ValueError, match="is not the code that the model was trained with"):
            load_model(folder, trust_network=True)
        (folder / added).unlink()
    (folder / "pathlib").rmdir()
    (folder / "pathlib").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="is a link to a folder"):
        load_model(folder, trust_network=True)
    (folder / "pathlib").unlink()
    compiled = Path(importlib.util.cache_from_source(str(folder / CODE)))
    compiled.parent.mkdir()
    hostile = tmp_path / "hostile.py"
    hostile.write_text("raise SystemExit")
    py_compile.compile(str(hostile), str(compiled), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    load_model(folder, trust_network=True)
