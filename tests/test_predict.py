"""Classifying image files: of any kind, mode and size, and those that are none."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_report import trained_study

from search.outputs.model_export import export_model
from training import predict as command
from training.config import PROJECT
from training.images.image_data import ImageData
from training.images.image_file import has_light_border, read_image
from training.images.image_folder import load_image_folder
from training.model.model_folder import load_model


@pytest.fixture(scope="module")
def model(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = export_model(trained_study(tmp_path_factory.mktemp("studies") / "study", digits))
    assert folder is not None
    return folder


@pytest.fixture
def pictures(digits: ImageData, tmp_path: Path) -> Path:
    """The first five test images as files, named after their labels, in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        label = int(digits.test.labels[number])
        Image.fromarray(digits.test.images[number, 0].numpy()).save(folder / f"{number}-is-{label}.png")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["training/predict.py", *map(str, words)])
    try:
        return command.main()
    except SystemExit as end:
        return int(str(end.code))


def test_each_image_gets_class_and_probability(
    model: Path, pictures: Path, digits: ImageData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(pictures.iterdir())
    assert run(monkeypatch, model, *files) == 0
    probabilities = load_model(model).predict(digits.test.images[:5])
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: {int(row.argmax())} {float(row.max()):.4f}" for file, row in zip(files, probabilities, strict=True)
    ]


def test_three_most_probable_classes_come_in_order(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_) = sorted(pictures.iterdir())
    assert run(monkeypatch, model, first, "--top", "3") == 0
    told = capsys.readouterr().out.removeprefix(f"{first}: ").split(", ")
    assert len(told) == 3
    shares = [float(part.split()[1]) for part in told]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("to_file", [False, True])
def test_folder_gives_a_table_in_which_bad_files_are_rows(
    model: Path,
    pictures: Path,
    to_file: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (pictures / "deeper").mkdir()
    Image.new("RGB", (30, 20)).save(pictures / "deeper" / "photo.jpg")
    (pictures / "=1+1.png").write_bytes(b"no image")
    (pictures / ".hidden.png").write_bytes(b"no image")
    (pictures / "@eaDir").mkdir()
    Image.new("RGB", (30, 20)).save(pictures / "@eaDir" / "photo.jpg")
    (pictures / "\x1b[2Jnotes.txt").touch()
    monkeypatch.chdir(pictures)
    table = pictures.parent / "table.csv"
    assert run(monkeypatch, model, ".", *(["--output", table] if to_file else [])) == 0
    output = capsys.readouterr()
    rows = list(csv.DictReader((table.read_text() if to_file else output.out).splitlines()))
    assert list(rows[0]) == ["file", "class", "probability", "error"]
    assert [row["file"] for row in rows] == [
        *(f"{number}-is-{rows[number]['class']}.png" for number in range(5)),
        "'=1+1.png",
        "deeper/photo.jpg",
    ]
    bad = rows[5]
    assert (bad["class"], bad["probability"]) == ("", "")
    assert bad["error"] == "'=1+1.png cannot be read as an image"
    assert all(0 < float(row["probability"]) <= 1 for row in rows if row is not bad)
    assert output.err.splitlines()[:2] == [
        "note: 1 file is left out (not an image format that can be read here): \\x1b[2Jnotes.txt",
        "note: 2 files are left out (hidden, or added by an operating system): .hidden.png and others",
    ]


def test_bad_image_is_one_sentence_and_the_others_are_told(
    model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_) = sorted(pictures.iterdir())
    cut = pictures / "cut.png"
    cut.write_bytes(first.read_bytes()[:60])
    assert run(monkeypatch, model, cut, pictures / "none.png", first) == 2
    output = capsys.readouterr()
    assert output.out.startswith(f"{first}: ")
    assert output.err.splitlines()[0].startswith(f"error: {cut} cannot be read: ")
    assert output.err.splitlines()[1] == f"error: there is no file {pictures / 'none.png'}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{model}"], "name at least one image file or folder to classify"),
        (["{model}", "{empty}"], "there is no image in {empty}"),
        (["{empty}", "x.png"], "{empty} is not the folder of a model: it has no config.json"),
        (["{model}", "x.png", "--top", "0"], "top must be >= 1, got 0"),
        (["{model}", "x.png", "--output", "{empty}"], "{empty} cannot be written: Is a directory"),
    ],
)
def test_mistake_is_one_sentence(
    words: list[str],
    sentence: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(monkeypatch, *(word.format(model=model, empty=empty) for word in words)) == 2
    assert capsys.readouterr().err == f"error: {sentence.format(empty=empty)}\n"


def test_light_background_is_told_and_inverted(
    model: Path, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan.png"
    Image.fromarray(255 - digits.test.images[0, 0].numpy()).save(scan)
    assert run(monkeypatch, model, scan) == 0
    assert "note: 1 of 1 image has a light background" in capsys.readouterr().err
    assert run(monkeypatch, model, scan, "--invert") == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"{scan}: {int(digits.test.labels[0])} ")
    assert output.err == ""


def test_pixels_of_the_right_size_are_taken_as_they_are(digits: ImageData, tmp_path: Path) -> None:
    pixels = digits.test.images[3, 0].numpy()
    for name in ("a.png", "a.bmp", "a.tiff", "a.gif", "a.pgm"):
        Image.fromarray(pixels).save(tmp_path / name)
        assert read_image(tmp_path / name, (1, 8, 8)).equal(digits.test.images[3])
    assert read_image(tmp_path / "a.png", (3, 8, 8)).equal(digits.test.images[3].expand(3, 8, 8))
    assert read_image(tmp_path / "a.png", (1, 8, 8), invert=True).equal(255 - digits.test.images[3])


def saved(image: Image.Image, file: Path, **options: Any) -> Path:
    image.save(file, **options)
    return file


def test_modes_come_out_right(tmp_path: Path) -> None:
    sixteen = saved(Image.fromarray(np.array([[0, 257 * 128], [65535, 256]], np.uint16)), tmp_path / "sixteen.png")
    assert read_image(sixteen, (1, 2, 2)).tolist() == [[[0, 128], [255, 0]]]
    clear = saved(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert read_image(clear, (3, 2, 2)).unique().tolist() == [255]
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert read_image(saved(palette, tmp_path / "palette.png"), (3, 2, 2))[:, 0, 0].tolist() == [10, 20, 30]
    wide = Image.new("L", (4, 2))
    wide.putpixel((0, 0), 255)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: a quarter turn to the right
    upright = read_image(saved(wide, tmp_path / "turned.png", exif=turned), (1, 4, 2))
    assert upright[0].argmax().item() == 1
    with pytest.raises(ValueError, match="its pixels are floating-point numbers"):
        read_image(saved(Image.new("F", (2, 2)), tmp_path / "fractions.tiff"), (1, 2, 2))


@pytest.mark.parametrize("colour", [False, True])
def test_file_of_a_training_folder_gives_the_pixels_that_were_trained_on(tmp_path: Path, colour: bool) -> None:
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 8
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        shape = (30, 40, 4) if colour else (30, 40)
        pixels = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
        saved(pixels.convert("RGB") if colour else pixels, tmp_path / name / "a.jpg", exif=turned)
        saved(pixels, tmp_path / name / "b.png")  # with transparency, if it has colour
        saved(pixels.resize((9, 9)), tmp_path / name / "c.png")
    train, test, _, _ = load_image_folder(tmp_path, 9)
    known = {image.numpy().tobytes() for images, _ in (train, test) for image in images}
    shape = (3 if colour else 1, 9, 9)
    assert {read_image(file, shape).numpy().tobytes() for file in tmp_path.rglob("*.*")} == known
    assert len(known) == 6


def test_image_that_would_fill_the_memory_or_run_a_program_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    bomb = saved(Image.new("1", (11, 10)), tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png cannot be read: Image size \(110 pixels\) exceeds limit"):
        read_image(bomb, (1, 8, 8))
    program = tmp_path / "program.png"
    program.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(program, (1, 8, 8))


def test_only_the_border_decides_about_the_background(tmp_path: Path) -> None:
    light = Image.new("L", (9, 9), 250)
    light.paste(0, (2, 2, 7, 7))
    assert has_light_border(read_image(saved(light, tmp_path / "light.png"), (1, 9, 9)))
    assert not has_light_border(read_image(tmp_path / "light.png", (1, 9, 9), invert=True))


def test_command_runs_alone_and_commands_no_terminal(model: Path, pictures: Path) -> None:
    odd = pictures / "\x1b[2Jodd.png"
    next(pictures.iterdir()).rename(odd)
    blocked = "import sys; sys.modules.update(dict.fromkeys(('ray', 'optuna', 'pandas', 'search')));"
    script = PROJECT / "training" / "predict.py"
    code = f"{blocked} import runpy; sys.argv[1:] = sys.argv[2:]; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "", str(model), str(odd)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "\\x1b[2Jodd.png: " in done.stdout
    assert "\x1b" not in done.stdout
