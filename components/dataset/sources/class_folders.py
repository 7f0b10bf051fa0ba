"""Images in one folder per diagnosis, perhaps below `train` and `test`; nothing else is known.

`melanoma_cancer_dataset/train/benign/melanoma_0.jpg` is the image `train__benign__melanoma_0`: two
folders may hold the same file name, and an outer folder may be called anything.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from components.dataset.sources.files import Files
from components.dataset.sources.listing import find_images, image_ids
from components.dataset.sources.source import SourceImages
from components.errors import SourceError

_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


class _Image(NamedTuple):
    name: str
    outer: tuple[str, ...]
    part: str | None
    diagnosis: str


def read(files: Files) -> SourceImages:
    """Take every image's folder for its diagnosis."""
    images = [_parse(name, files.where) for name in find_images(files)]
    _check_one_layout(images, files.where)
    keys = pd.Series(
        [
            "/".join(filter(None, (image.part, image.diagnosis, PurePosixPath(image.name).stem)))
            for image in images
        ],
        name="name",
    )
    names = image_ids(keys.str.replace(r"[^\w./-]", "_", regex=True), where=files.where)
    _check_distinct(names, images, files.where)
    empty = dict.fromkeys(
        ("patient_id", "lesion_id", "diagnosis_method", "sex", "site", "skin_type")
    )
    return SourceImages(
        labels=pd.DataFrame(
            {
                "image_id": names,
                **empty,
                "diagnosis": [image.diagnosis for image in images],
                "age_years": float("nan"),
            }
        ),
        files={name: image.name for name, image in zip(names, images, strict=True)},
        read=files.read,
        licence="not stated",
        attribution="not stated",
        given_parts={
            name: image.part for name, image in zip(names, images, strict=True) if image.part
        },
    )


def _parse(name: str, where: str) -> _Image:
    *folders, _ = name.split("/")
    if not folders or folders[-1].lower() in _PARTS:
        raise SourceError(
            f"an image lies in no diagnosis' folder: {name}",
            where=where,
            fix="sort the images into one folder per diagnosis",
        )
    part = _PARTS.get(folders[-2].lower()) if len(folders) > 1 else None
    return _Image(name, tuple(folders[: -2 if part else -1]), part, folders[-1])


def _check_one_layout(images: list[_Image], where: str) -> None:
    """Raise unless all images lie equally deep, below the same outer folders."""
    first = images[0]
    for image in images:
        if image.outer != first.outer or bool(image.part) != bool(first.part):
            raise SourceError(
                f"the folders are not of one kind: {first.name} and {image.name}",
                where=where,
                fix="sort the images into <diagnosis>/ or {train,test}/<diagnosis>/, or point "
                "the source to the folder that has these",
            )


def _check_distinct(names: pd.Series, images: list[_Image], where: str) -> None:
    again = names[names.duplicated(keep=False)]
    if len(again):
        same = [images[index].name for index in again.index[again == again.iloc[0]]]
        raise SourceError(
            f"two images would both be called {again.iloc[0]}: {' and '.join(same[:2])}",
            where=where,
            fix="rename one of the files",
        )
