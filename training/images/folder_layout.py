"""Tells whether a folder of images holds classes, or parts for training and test that hold the classes."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from training.images.file_selection import visible_folders

LAYOUT = "the layout must be CLASS/IMAGE, or train/CLASS/IMAGE and test/CLASS/IMAGE"

_ROLES = {
    "train": r"train(ing|val)?",
    "test": r"test(ing)?",
    "validation": r"val(id|idation)?|dev|eval(uation)?|holdout",
}
_NEUTRAL = frozenset(("set", "data", "dataset", "image", "images", "img", "imgs", "folder", "split", "part"))
"""Words in the name of a part that say nothing."""


@dataclass(frozen=True)
class Parts:
    """A folder that is split into parts."""

    train: Path
    """The folder of the classes for training."""
    test: Path
    """The folder of the classes for the test."""


def find_parts(folder: Path) -> Parts | None:
    """Find the parts of a folder by their names: `train` and `test`, `Training` and `Testing`, `seg_train`...

    Two folders are parts if their names differ only in the word that says what they are for.

    Returns:
        The parts; None if the folder holds classes.

    Raises:
        ValueError: The folder seems to be split, but it is not clear into what, or a part has no classes.
    """
    folders = visible_folders(folder)
    splits = _splits(folders)
    if not splits:
        _check_not_split(folder, folders)
        return None
    (roles, *others) = splits
    if others or any(len(same) > 1 for same in roles.values()):
        names = ", ".join(part.name for split in splits for same in split.values() for part in same)
        raise ValueError(f"{folder} has several folders for one purpose ({names}): {LAYOUT}")
    if "train" not in roles:
        raise ValueError(f"{folder} has {' and '.join(part.name for (part,) in roles.values())} but no train: {LAYOUT}")
    (train,) = roles["train"]
    if "test" not in roles:
        (validation,) = roles["validation"]
        raise ValueError(_no_test(folder, train, f"rename {validation.name} to test"))
    (test,) = roles["test"]
    parts = Parts(_class_folder(train), _class_folder(test))
    for part in (parts.train, parts.test):
        if not visible_folders(part):
            hint = "" if part == parts.train else f"; to test on a fifth of {train.name}, give the folder {parts.train}"
            raise ValueError(f"{part} has no folder for each class: {LAYOUT}{hint}")
    return parts


def check_no_parts_inside(class_folder: Path, files: Iterable[Path]) -> None:
    """Refuse a class whose files lie in parts for training and test."""
    inside = {file.relative_to(class_folder).parts[0] for file in files if file.parent != class_folder}
    if _splits([class_folder / name for name in sorted(inside)]):
        raise ValueError(f"{class_folder} has folders for training and test inside a class: {LAYOUT}")


def _splits(folders: list[Path]) -> list[dict[str, list[Path]]]:
    """The folders of each role, for all groups of folders of different roles whose names are equal otherwise."""
    groups: defaultdict[tuple[str, ...], defaultdict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        role, other_words = _role(folder.name)
        if role:
            groups[other_words][role].append(folder)
    return [dict(roles) for roles in groups.values() if len(roles) > 1]


def _role(name: str) -> tuple[str, tuple[str, ...]]:
    """The role that one word of a folder's name says, and its other words; no role if no word or several say one."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    found = [
        (role, word)
        for word in words
        for role, pattern in _ROLES.items()
        if re.fullmatch(rf"({pattern})(set|data|images)?", word)
    ]
    if len(found) != 1:
        return "", ()
    ((role, role_word),) = found
    return role, tuple(word for word in words if word != role_word and word not in _NEUTRAL)


def _check_not_split(folder: Path, folders: list[Path]) -> None:
    """Refuse folders that are named like parts and hold folders of the same names, which are then the classes."""
    named = [child for child in folders if re.search("train|test|valid", child.name, re.IGNORECASE)]
    if len(folders) == 1 and _role(folders[0].name)[0] == "train" and visible_folders(folders[0]):
        raise ValueError(_no_test(folder, folders[0]))
    inside = {child: {each.name for each in visible_folders(child)} for child in (folders if named else [])}
    for part in named:
        for other in folders:
            if other != part and len(inside[part] & inside[other]) > 1:
                raise ValueError(f"{part} and {other} have folders of the same names: {LAYOUT}")


def _no_test(folder: Path, train: Path, *more: str) -> str:
    ways = " or ".join(("add one,", *(f"{way}," for way in more), f"give the folder {_class_folder(train)} itself"))
    return f"{folder} has {train.name} but no test: {ways}"


def _class_folder(part: Path) -> Path:
    """The folder of the classes of a part: some archives hold seg_train/seg_train/CLASS."""
    inside, role = visible_folders(part), _role(part.name)
    return _class_folder(inside[0]) if len(inside) == 1 and _role(inside[0].name) == role else part
