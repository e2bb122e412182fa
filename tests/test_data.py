import gzip
import hashlib
import os
import pickle
import shutil
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import DataConfig, absolute_dataset, dataset_name, function_name
from training.images import mnist
from training.images.image_data import ImageData, ImageSplit, batches, load_data, split_train_val
from training.images.torchvision_import import import_torchvision_datasets

datasets = import_torchvision_datasets  # called by the tests that need it: torchvision takes seconds to import


def test_scaling_equals_to_tensor() -> None:
    datasets()  # after which all of torchvision can be imported, whatever it was built for
    from torchvision.transforms import ToTensor

    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    (scaled, _), *_ = batches(ImageSplit(images, torch.zeros(1, dtype=torch.int64)), 1)
    assert torch.equal(scaled[0], ToTensor()(images[0, 0].numpy()))


def test_batches_without_shuffler_keep_the_order(digits: ImageData) -> None:
    images, labels = zip(*batches(digits.train, 500), strict=True)
    assert [len(part) for part in labels] == [500, 500, 198]
    assert torch.equal(torch.cat(labels), digits.train.labels)
    assert torch.equal(torch.cat(images), digits.train.images / 255)


def test_shuffled_batches_hold_each_image_once_with_its_own_label(digits: ImageData) -> None:
    numbered = ImageSplit(torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1), torch.arange(200))
    images, labels = zip(*batches(numbered, 64, torch.Generator().manual_seed(0)), strict=True)
    assert torch.cat(labels).sort().values.tolist() == list(range(200))
    assert torch.cat(labels).tolist() != list(range(200))
    assert torch.equal((torch.cat(images).flatten() * 255).round().long(), torch.cat(labels))


def test_shuffler_gives_another_order_in_the_next_epoch(digits: ImageData) -> None:
    shuffler = torch.Generator().manual_seed(0)
    first, second = (torch.cat([labels for _, labels in batches(digits.train, 64, shuffler)]) for _ in range(2))
    assert not torch.equal(first, second)


def test_split_is_disjoint_complete_and_fixed_by_the_seed() -> None:
    train, val = split_train_val(60_000, 1 / 6, seed=3)
    assert (len(train), len(val)) == (50_000, 10_000)
    assert torch.cat([train, val]).sort().values.tolist() == list(range(60_000))
    again, other = split_train_val(60_000, 1 / 6, seed=3), split_train_val(60_000, 1 / 6, seed=4)
    assert torch.equal(val, again[1])
    assert not torch.equal(val, other[1])


@pytest.mark.parametrize(("num_images", "val_fraction"), [(100, 1.0), (100, -0.1), (10, 0.99), (10, 0.001)])
def test_split_that_leaves_one_side_empty_is_refused(num_images: int, val_fraction: float) -> None:
    with pytest.raises(ValueError, match="val_fraction"):
        split_train_val(num_images, val_fraction, seed=0)


def test_no_validation_split_trains_on_everything() -> None:
    data, _ = load_data(DataConfig(dataset="digits", val_fraction=0), split_seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (1438, 0, 359)


def test_digits_fill_the_range_of_pixels_and_hold_ten_classes(digits: ImageData) -> None:
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.shape[1:] == (1, 8, 8)
    assert (int(digits.train.images.min()), int(digits.train.images.max())) == (0, 255)
    assert digits.train.labels.unique().tolist() == list(range(10))


def test_pickled_split_shares_the_memory_of_its_buffers(digits: ImageData) -> None:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(digits.train, protocol=5, buffer_callback=buffers.append)
    loaded = pickle.loads(head, buffers=[buffer.raw().toreadonly() for buffer in buffers])
    assert loaded.images.data_ptr() == digits.train.images.data_ptr()
    assert torch.equal(loaded.images, digits.train.images)
    assert len(head) < 1000


@pytest.mark.parametrize("name", mnist.CLASSES)
def test_names_of_classes_are_those_of_torchvision(name: str) -> None:
    assert list(mnist.CLASSES[name]) == mnist._torchvision_class(name).classes


def test_real_fashion_mnist_is_whole(fashion_mnist_dir: Path) -> None:
    data, warning = load_data(DataConfig(data_dir=fashion_mnist_dir), split_seed=0)
    assert warning is None
    assert data.name == "fashion-mnist"
    assert data.classes[9] == "Ankle boot"
    assert (data.train.images.shape, data.val.images.shape) == ((50_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert data.test.images.shape == (10_000, 1, 28, 28)
    pixels = torch.cat([data.train.images, data.val.images]).float() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=1e-4)  # as published
    assert pixels.std().item() == pytest.approx(0.3530, abs=1e-4)


def write_idx_files(folder: Path) -> None:
    """Four files of the right form: blank images, all of class 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (magic, shape) in mnist.FILES.items():
        header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
        (folder / name).write_bytes(header + bytes(int(np.prod(shape))))


@pytest.fixture(scope="module")
def blank_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blank")
    write_idx_files(folder / "MNIST" / "raw")
    return folder


@pytest.fixture
def damaged_mnist(blank_mnist: Path, tmp_path: Path) -> Path:
    shutil.copytree(blank_mnist, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("name", mnist.FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "corrupt"])
def test_damaged_file_is_named(damaged_mnist: Path, name: str, damage: str) -> None:
    file = damaged_mnist / "MNIST" / "raw" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncated" else b"x" + content[1:])
    with pytest.raises(ValueError, match=f"{damage} file of mnist: .*{name}"):
        load_data(DataConfig(dataset="mnist", data_dir=damaged_mnist), split_seed=0)


def test_label_above_nine_is_corrupt(damaged_mnist: Path) -> None:
    file = damaged_mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="corrupt file of mnist"):
        load_data(DataConfig(dataset="mnist", data_dir=damaged_mnist), split_seed=0)


def test_one_changed_pixel_of_fashion_mnist_is_corrupt_and_auto_does_not_hide_it(tmp_path: Path) -> None:
    write_idx_files(tmp_path / "FashionMNIST" / "raw")  # the right form, but not the published content
    with pytest.raises(ValueError, match=r"corrupt file of fashion-mnist: .*train-images"):
        load_data(DataConfig(dataset="auto", data_dir=tmp_path), split_seed=0)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the address at which it is served on this machine."""
    folder = tmp_path_factory.mktemp("served")

    class QuietHandler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{http_server.server_address[1]}/"
    http_server.shutdown()
    http_server.server_close()


def serve(folder: Path, address: str, idx_dir: Path, dataset: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the files of `idx_dir` compressed, and have torchvision download them from there."""
    resources = []
    for name in mnist.FILES:
        packed = gzip.compress((idx_dir / name).read_bytes(), compresslevel=1)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(dataset, "mirrors", [address])
    monkeypatch.setattr(dataset, "resources", resources)


def test_absent_data_set_is_downloaded_once(
    blank_mnist: Path, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    serve(folder, address, blank_mnist / "MNIST" / "raw", datasets().MNIST, monkeypatch)
    data, _ = load_data(DataConfig(dataset="mnist", data_dir=tmp_path), split_seed=0)
    assert len(data.test) == 10_000
    assert sorted(file.name for file in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(mnist.FILES)
    shutil.rmtree(folder)  # nothing more to download
    again, _ = load_data(DataConfig(dataset="mnist", data_dir=tmp_path), split_seed=0)
    assert again.sha256 == data.sha256


def test_truncated_download_is_named_and_leaves_nothing(
    blank_mnist: Path, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    serve(folder, address, blank_mnist / "MNIST" / "raw", datasets().MNIST, monkeypatch)
    truncated = folder / "t10k-images-idx3-ubyte.gz"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"mnist could not be downloaded.*t10k-images-idx3-ubyte"):
        load_data(DataConfig(dataset="mnist", data_dir=tmp_path / "data"), split_seed=0)
    assert not (tmp_path / "data").exists()


def test_auto_falls_back_to_digits_with_a_warning_when_the_download_is_damaged(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    monkeypatch.setattr(datasets().FashionMNIST, "mirrors", [address])
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not what was published")
    data, warning = load_data(DataConfig(dataset="auto", data_dir=tmp_path), split_seed=0)
    assert data.name == "digits"
    assert warning is not None
    assert "fashion-mnist could not be downloaded" in warning
    assert "digits" in warning


def test_auto_falls_back_to_digits_when_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets().FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    data, warning = load_data(DataConfig(dataset="auto", data_dir=tmp_path / "data"), split_seed=0)
    assert data.name == "digits"
    assert warning is not None
    assert "cannot be reached" in warning
    assert [file.name for file in (tmp_path / "data").iterdir()] == [".fashion-mnist-unanswered"]


def test_data_set_asked_for_by_name_never_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets().FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ValueError, match="fashion-mnist could not be downloaded"):
        load_data(DataConfig(dataset="fashion-mnist", data_dir=tmp_path / "data"), split_seed=0)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("mnist", "mnist"),
        ("photos/my shop/", "my-shop"),
        ("./mnist", "mnist-images"),
        ("/", "images"),
        ("./..../", "images"),
        ("./latest", "latest-images"),
        ("path/to/birds.py:load", "birds"),
        ("path/to/birds.py:load_small", "birds-load_small"),
        ("package.birds:load", "birds"),
        ("./" + "a" * 300, "a" * 60),
    ],
)
def test_data_set_has_a_short_name_for_files(dataset: str, name: str) -> None:
    assert dataset_name(dataset) == name


def test_training_function_has_a_short_name_for_files() -> None:
    names = [
        function_name(path, "train") for path in ("my run.py:train", "/a/b.py:fit", "package.tune:train", "_.py:train")
    ]
    assert names == ["my-run", "b-fit", "tune", ""]


def test_data_set_can_be_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_dataset("digits") == "digits"
    assert absolute_dataset("./photos") == str(tmp_path / "photos")
    assert absolute_dataset("birds.py:load") == f"{tmp_path / 'birds.py'}:load"
    assert absolute_dataset("package.birds:load") == "package.birds:load"


@pytest.mark.parametrize(("typed", "meant"), [("fashion_mnist", "fashion-mnist"), ("CIFAR", "cifar10"), ("zoo", None)])
def test_unknown_data_set_is_refused_with_the_nearest_known(typed: str, meant: str | None) -> None:
    with pytest.raises(ValueError, match=f"got {typed}" + (rf"; did you mean {meant}\?$" if meant else "$")):
        DataConfig(dataset=typed)


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """CIFAR-10's files with ten images each, packed; torchvision takes their checksums for those published."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir()

    def dump(name: str, content: object) -> tuple[str, str]:
        packed = pickle.dumps(content)
        (inside / name).write_bytes(packed)
        return name, hashlib.md5(packed).hexdigest()

    rows = {"data": np.arange(30_720, dtype=np.uint32).astype(np.uint8).reshape(10, 3072), "labels": list(range(10))}
    train = [dump(f"data_batch_{number}", rows) for number in range(1, 6)]
    test = [dump("test_batch", rows)]
    names, md5 = dump("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets().CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets().CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets().CIFAR10, "meta", {"filename": names, "key": "label_names", "md5": md5})
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(inside, inside.name)
    shutil.rmtree(inside)
    return archive.read_bytes()


def test_cifar10_is_downloaded_once_and_a_damaged_file_is_refused(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    archive = write_cifar(folder, monkeypatch)
    monkeypatch.setattr(datasets().CIFAR10, "url", f"{address}cifar-10-python.tar.gz")
    monkeypatch.setattr(datasets().CIFAR10, "tgz_md5", hashlib.md5(archive).hexdigest())
    config = DataConfig(dataset="cifar10", data_dir=tmp_path / "data", val_fraction=0)
    data, _ = load_data(config, split_seed=0)
    assert (data.image_shape, len(data.train), len(data.test)) == ((3, 32, 32), 50, 10)
    assert data.classes == tuple("abcdefghij")
    assert data.train.images[0, 1, 0, :3].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-py"]
    shutil.rmtree(folder)  # nothing more to download
    assert load_data(config, split_seed=0)[0].sha256 == data.sha256
    file = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(ValueError, match="missing or corrupt file of cifar10"):
        load_data(config, split_seed=0)


def test_cifar10_that_cannot_be_downloaded_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets().CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(ValueError, match="cifar10 could not be downloaded"):
        load_data(DataConfig(dataset="cifar10", data_dir=tmp_path / "data"), split_seed=0)
    assert not (tmp_path / "data").exists()


def test_server_that_did_not_answer_is_not_asked_again_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def unanswered(name: str) -> None:
        asked.append(name)
        raise ValueError("no answer")

    monkeypatch.setattr("training.images.mnist.check_server_answers", unanswered)
    config = DataConfig(dataset="auto", data_dir=tmp_path / "data")
    first, again = (load_data(config, split_seed=0) for _ in range(2))
    assert (first[0].name, again[0].name, asked) == ("digits", "digits", ["fashion-mnist"])
    assert "the server of fashion-mnist did not answer 0 minutes ago" in str(again[1])
    (mark,) = (tmp_path / "data").iterdir()
    os.utime(mark, (time.time() - 3601,) * 2)
    load_data(config, split_seed=0)
    assert len(asked) == 2
