import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import DataConfig
from training.images import image_folder
from training.images.file_selection import image_suffixes
from training.images.image_data import ImageData, load_data


def write(file: Path, colour: tuple[int, int, int] | int = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(file)
    return file


def make(folder: Path, **images: int) -> Path:
    """A folder with so many images of each class, each class of one colour."""
    for number, (name, count) in enumerate(images.items()):
        for image in range(count):
            write(folder / name / f"{image:03}.png", (number * 50, 255 - image, 7))
    return folder


def load(folder: Path, val_fraction: float = 0.0, image_size: int = 8) -> tuple[ImageData, str | None]:
    config = DataConfig(dataset=f"{folder}/", val_fraction=val_fraction, image_size=image_size)
    return load_data(config, split_seed=0)


def test_classes_are_the_folders_and_a_fifth_of_each_is_the_test(tmp_path: Path) -> None:
    data, note = load(make(tmp_path / "my shop!", coat=10, bag=20))
    assert (data.name, data.classes, note) == ("my-shop", ("bag", "coat"), None)
    assert data.train.labels.tolist() == [0] * 16 + [1] * 8
    assert data.test.labels.tolist() == [0] * 4 + [1] * 2
    assert data.train.images.shape == (24, 3, 8, 8)
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert data.train.images[data.train.labels == 0, 0].unique().tolist() == [50]
    greens = torch.cat([data.train.images[:16, 1, 0, 0], data.test.images[:4, 1, 0, 0]])
    assert sorted(greens.tolist()) == list(range(236, 256))  # each image once
    again, _ = load(tmp_path / "my shop!")
    assert again.sha256 == data.sha256


def test_folders_train_and_test_are_used(tmp_path: Path) -> None:
    make(tmp_path / "train", bag=3, coat=2)
    make(tmp_path / "test", bag=1, coat=1)
    data, note = load(tmp_path)
    assert (len(data.train), len(data.test), note) == (5, 2, None)
    make(tmp_path / "val", bag=1, coat=1)
    data, note = load(tmp_path)
    assert (len(data.train), len(data.test)) == (5, 2)
    first, why = tmp_path / "val" / "bag" / "000.png", "neither in the training folder nor in the test folder"
    assert note == f"2 files are left out ({why}): {first} and others"


PARTS = [
    ("Training", "Testing"),
    ("TRAIN", "TEST"),
    ("training_set", "test_set"),
    ("training_set/training_set", "test_set/test_set"),
    ("seg_train/seg_train", "seg_test/seg_test"),
    ("TrainImages", "TestImages"),
    ("trainset", "testset"),
    ("train-data", "test"),
    ("1_Train", "2_Test"),
    ("trainval", "test"),
    ("fruits-360_Training", "fruits-360_Test"),
]


@pytest.mark.parametrize(("train", "test"), PARTS)
def test_parts_for_training_and_test_are_known_by_their_names(tmp_path: Path, train: str, test: str) -> None:
    make(tmp_path / train, bag=3, coat=2)
    make(tmp_path / test, bag=1, coat=1)
    for more in ("Valid/bag", "seg_pred/seg_pred"):
        write(tmp_path / more / "0.png")
    data, note = load(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (("bag", "coat"), 5, 2)
    assert str(note).startswith("2 files are left out (neither in the training folder nor in the test folder)")


UNCLEAR = {
    "train/a train/b val/a val/b": "has train but no test: add one, or rename val to test, or give the folder {0}/",
    "Training/a Training/b": "has Training but no test: add one, or give the folder {0}/Training itself",
    "test/a test/b val/a val/b": "has test and val but no train: the layout must be CLASS/IMAGE, or train/CLASS/IMAGE",
    "train test1": "{0}/train has no folder for each class: the layout must be CLASS/IMAGE, or train/CLASS/IMAGE",
    "train/a train/b test": "{0}/test has no folder for each class: the layout must be CLASS/IMAGE, or train/CLASS",
    "train1/a train1/b train2/a train2/b test/a test/b": "has several folders for one purpose (test, train1, train2)",
    "train_val/a train_val/b test/a test/b": "test and {0}/train_val have folders of the same names: the layout must",
    "Lerntrain/a Lerntrain/b Rest/a Rest/b": "Lerntrain and {0}/Rest have folders of the same names: the layout must",
    "cat/train cat/test dog/train dog/test": "{0}/cat has folders for training and test inside a class: the layout",
    "all/train/a all/train/b all/test/a all/test/b": "has 1 class; if the classes are in {0}/all, give that folder",
}


@pytest.mark.parametrize("folders", UNCLEAR)
def test_parts_that_are_not_clear_are_refused_with_the_layout(tmp_path: Path, folders: str) -> None:
    for folder in folders.split():
        for name in ("0.png", "1.png", "2.png"):
            write(tmp_path / folder / name)
    with pytest.raises(ValueError, match=re.escape(UNCLEAR[folders].format(tmp_path))):
        load(tmp_path)


@pytest.mark.parametrize(
    "classes", [("ship", "train"), ("bullet_train", "test_tube"), ("invalid", "valid"), ("resting", "training")]
)
def test_classes_can_be_called_like_parts(tmp_path: Path, classes: tuple[str, ...]) -> None:
    assert load(make(tmp_path, **dict.fromkeys(classes, 5)))[0].classes == classes


def test_images_are_resized_to_a_square_and_grey_ones_have_one_channel(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"class{number % 2}" / f"{number}.png", 40 * number, size=(30 + number, 7))
    data, _ = load(tmp_path, image_size=16)
    assert data.image_shape == (1, 16, 16)
    write(tmp_path / "class0" / "colour.png", (1, 2, 3))
    assert load(tmp_path, image_size=16)[0].image_shape == (3, 16, 16)


def test_images_are_turned_as_the_camera_noted(tmp_path: Path) -> None:
    make(tmp_path, one=2, two=2)
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("000.png", "001.png"):
        Image.fromarray(pixels).save(tmp_path / "one" / name, exif=exif)
    data, _ = load(tmp_path)
    assert data.train.images[0, 0, :, 0].tolist() == [0] * 4 + [255] * 4


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    make(tmp_path, one=2, two=2)
    notes, why = tmp_path / "one" / "notes.txt", "not an image format that can be read here"
    for file in (notes, notes.with_name(".DS_Store"), notes.with_name("Thumbs.db")):
        file.touch()
    assert load(tmp_path)[1] == f"1 file is left out ({why}): {notes}"
    (tmp_path / "two" / "photo.heic").touch()
    assert load(tmp_path)[1] == f"2 files are left out ({why}): {notes} and others"
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "photo.heic").touch()
    with pytest.raises(ValueError, match=rf'class "three" has no images: \S+; 1 file is left out \({why}\)'):
        load(tmp_path)


def test_images_that_are_hidden_or_were_added_by_a_system_are_left_out_and_told(tmp_path: Path) -> None:
    before, _ = load(make(tmp_path, one=5, two=5))
    for name in (
        ".ipynb_checkpoints/0-checkpoint.png",
        "one/.ipynb_checkpoints/0-checkpoint.png",
        "one/@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg",
        "two/deeper/.thumbs/large/0.png",
        "two/._000.png",
        "__MACOSX/one/._000.png",
        "__MACOSX/one/0.png",
    ):
        write(tmp_path / name)
    data, note = load(tmp_path)
    assert data.sha256 == before.sha256
    first = tmp_path / ".ipynb_checkpoints" / "0-checkpoint.png"
    assert note == f"7 files are left out (hidden, or added by an operating system): {first} and others"


def test_links_are_followed_as_torchvision_does(tmp_path: Path) -> None:
    store, folder = make(tmp_path / "store", first=3, second=3, third=3), tmp_path / "data"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "more").symlink_to(store / "first")
    (folder / "cat" / "x.png").symlink_to(store / "second" / "000.png")
    (folder / "dog").symlink_to(store / "third")
    data, note = load(folder)
    assert (data.class_sizes(), note) == ([4, 3], None)
    (folder / "cat" / "again").symlink_to(folder)
    (folder / "cat" / "nowhere.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "cat" / "pipe.png")
    again, note = load(folder)
    assert again.sha256 == data.sha256
    why = "not a regular file, or a link to nothing or to a folder above it"
    assert note == f"3 files are left out ({why}): {folder / 'cat' / 'again'} and others"


def test_images_in_all_formats_that_pillow_reads_are_taken(tmp_path: Path) -> None:
    readable = sorted(image_suffixes() - {".im"})  # Pillow warns of a format that it will drop
    suffixes = [suffix for suffix in readable if Image.registered_extensions()[suffix] in Image.SAVE]
    assert {".jfif", ".jpe", ".jp2", ".ico", ".tga", ".pbm", ".avif"} <= {*suffixes}
    for suffix in suffixes:
        for name in ("one", "two"):
            file = tmp_path / name / f"{suffix[1:]}{suffix.upper()}"
            file.parent.mkdir(exist_ok=True)
            Image.new({".blp": "P", ".msp": "1", ".xbm": "1"}.get(suffix, "RGB"), (16, 16)).save(file)
    data, note = load(tmp_path)
    assert (data.class_sizes(), note) == ([len(suffixes)] * 2, None)


def test_file_that_would_run_a_program_is_no_image(tmp_path: Path) -> None:
    make(tmp_path, one=2, two=2)
    (tmp_path / "one" / "000.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(ValueError, match=r"broken image \S+000.png: its content is not that of an image"):
        load(tmp_path)


def test_unequal_classes_are_told(tmp_path: Path) -> None:
    data, note = load(make(tmp_path, shirt=12, coat=34, hat=20))
    assert note == 'the sizes of classes differ a lot: "shirt" has 12 images, and "coat" has 34'
    assert data.class_sizes() == [34, 20, 12]


def test_broken_image_is_named(tmp_path: Path) -> None:
    make(tmp_path, one=5, two=5)
    file = tmp_path / "two" / "003.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=f"broken image {file}: "):
        load(tmp_path)
    file.write_text("no image")
    with pytest.raises(ValueError, match=f"broken image {file}: its content is not that of an image"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "webp"])
def test_animated_image_is_named(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, one=2, two=2)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "one" / f"moves.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"image with several frames or pages: .*moves\.{suffix}"):
        load(tmp_path)


def test_image_of_16_bits_is_named(tmp_path: Path) -> None:
    make(tmp_path, one=2, two=2)
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(tmp_path / "one" / "deep.png")
    with pytest.raises(ValueError, match=r"more than 8 bits per channel: .*deep\.png"):
        load(tmp_path)


def test_classes_that_make_no_task_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has 0 classes; there must be at least 2"):
        load(tmp_path)
    make(tmp_path, one=2)
    with pytest.raises(ValueError, match="has 1 class; there must be at least 2"):
        load(tmp_path)
    make(tmp_path, two=2, three=2)
    monkeypatch.setattr(image_folder, "MAX_CLASSES", 2)
    with pytest.raises(ValueError, match="has 3 classes; at most 2 are possible"):
        load(tmp_path)


def test_ten_thousand_classes_are_refused_before_an_image_is_read(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(ValueError, match="has 10,000 classes; at most 1,000 are possible"):
        load(tmp_path)


def test_class_without_enough_images_is_named(tmp_path: Path) -> None:
    make(tmp_path, one=2, two=1)
    with pytest.raises(ValueError, match='class "two" has 1 image; it needs at least 2, one for training'):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match='class "empty" has no images'):
        load(tmp_path)


def test_class_without_a_training_image_after_the_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'class "(one|two)" has 2 images, but none of them is a training image'):
        load(make(tmp_path, one=2, two=2), val_fraction=0.5)


def test_train_and_test_of_other_classes_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "train", bag=3, coat=2)
    with pytest.raises(ValueError, match="has train but no test"):
        load(tmp_path)
    make(tmp_path / "test", bag=1, hat=1)
    with pytest.raises(ValueError, match=f'class "coat" is in {tmp_path}/train, but not in {tmp_path}/test'):
        load(tmp_path)


def test_image_outside_of_the_classes_is_named(tmp_path: Path) -> None:
    stray = write(make(tmp_path, one=2, two=2) / "stray.png")
    with pytest.raises(ValueError, match=f"image outside all classes: {stray}"):
        load(tmp_path)


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"there is no folder {tmp_path}/nowhere"):
        load(tmp_path / "nowhere")


def test_study_names_itself_after_the_folder_and_can_find_it_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.engine.study import prepare_study
    from search.settings import StudySettings

    make(tmp_path / "shop", coat=12, bag=30)
    monkeypatch.chdir(tmp_path)
    study = prepare_study(
        StudySettings(dataset="shop", image_size=8, dashboard=False, results_dir=tmp_path / "results")
    )
    assert study.folder.path.name.startswith("shop-2")
    assert study.record.metadata.settings.dataset == str(tmp_path / "shop")
    assert study.record.metadata.images.name == "shop"
    assert study.record.metadata.images.class_images == [30, 12]
    study.record.close()
    study.folder.close()
