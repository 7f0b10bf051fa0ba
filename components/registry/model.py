"""A registered model that predicts: `lesionflow predict` and whoever wants to from Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.backbones.saved import LoadedModel, load_model
from components.errors import SourceError
from components.progress import Progress
from components.registry.ood import DOMAIN, LEAST_IMAGES, Domain, read_domain
from components.registry.predicting import CHUNK, predict_all
from components.registry.versions import Registry
from components.tables import probability_columns

WARNING = "Research software, no medical device: not for diagnosis."
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})


class Classifier:
    """Predicts diagnoses from image files.

    Parameters
    ----------
    model
        A loaded model.
    name
        What to call it, such as `ham10000 v0003`.
    domain
        What its pictures look like; None: nothing is refused, and every answer says so.
    """

    def __init__(self, model: LoadedModel, name: str, domain: Domain | None = None) -> None:
        self.model = model
        self.name = name
        self.domain = domain

    @staticmethod
    def from_registry(registry: Registry, name: str = "champion") -> Classifier:
        """Load a version or alias, checksums verified.

        Raises
        ------
        RegistryError
            It is not there or damaged, or the registry cannot be reached.
        """
        version = registry.resolve(name)
        folder = registry.fetch(version)
        name = f"{registry.model_name} {version}"
        return Classifier(load_model(folder, verify=False), name, read_domain(folder))

    @staticmethod
    def from_folder(folder: Path) -> Classifier:
        """Load the model in a folder (a pulled version, or a run).

        Raises
        ------
        RegistryError
            There is none, or it is damaged.
        """
        return Classifier(load_model(folder), folder.name, read_domain(folder))

    def domain_check(self, *, any_picture: bool = False) -> str:
        """Return whether pictures of another kind are refused: `checked`, or why not."""
        if any_picture:
            return "not checked: any picture was asked for (--any-picture)"
        if self.domain is None:
            return (
                f"not checked: {self.name} has no {DOMAIN} (it needs {LEAST_IMAGES} validation "
                "pictures that differ), so a picture that is no lesion gets a diagnosis, too"
            )
        return "checked"

    @property
    def classes(self) -> tuple[str, ...]:
        """The diagnoses, in the order of the probabilities."""
        return self.model.file.classes

    def predict(self, paths: Sequence[Path], *, any_picture: bool = False) -> pd.DataFrame:
        """Predict images, or all images in folders.

        Parameters
        ----------
        paths
            Images and folders.
        any_picture
            Predict what does not look like the model's pictures, too.

        Returns
        -------
        DataFrame
            One row per image, in the order given (a folder's sorted): `image` (its path),
            `diagnosis` (the most probable class), `malignant_score` (sum of the malignant classes'
            probabilities), `p_<class>` …, `problem` (why there is no prediction; else None).

        Raises
        ------
        SourceError
            A path does not exist, or there is no image at all.
        """
        files = list(_image_files(paths))
        if not files:
            raise SourceError(
                "there is no image",
                where=", ".join(map(str, paths)),
                fix=f"name image files ({', '.join(sorted(_SUFFIXES))}) or folders of them",
            )
        total = len(files)

        def tell(done: int) -> None:
            if total > CHUNK:
                print(Progress("predict", done, total, "images"), file=sys.stderr, flush=True)

        probabilities, problems = predict_all(
            self.model,
            [file.read_bytes for file in files],
            tell,
            domain=None if any_picture else self.domain,
        )
        there = np.array([problem is None for problem in problems])
        best = np.array(self.classes, dtype=object)[np.nan_to_num(probabilities).argmax(axis=1)]
        is_malignant = [name in self.model.file.malignant for name in self.classes]
        columns = dict(zip(probability_columns(self.classes), probabilities.T, strict=True))
        return pd.DataFrame(
            {
                "image": [str(path) for path in files],
                "diagnosis": pd.Series(np.where(there, best, None), dtype=object),
                "malignant_score": probabilities[:, is_malignant].sum(axis=1),
                **columns,
                "problem": pd.Series(problems, dtype=object),
            }
        )


def _image_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*"))
            yield from (file for file in found if file.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            yield path
        else:
            raise SourceError("no such file or folder", where=str(path), fix="check the path")


def prediction_document(
    classifier: Classifier, frame: pd.DataFrame, *, any_picture: bool = False
) -> dict[str, Any]:
    """Return predictions as the JSON document of `lesionflow predict --json`.

    Parameters
    ----------
    frame
        Of `Classifier.predict`, which was given the same `any_picture`.
    """
    rows = []
    for record in frame.to_dict(orient="records"):
        there = record["problem"] is None
        rows.append(
            {
                "image": record["image"],
                "diagnosis": record["diagnosis"],
                "probabilities": {name: record[f"p_{name}"] for name in classifier.classes}
                if there
                else None,
                "malignant_score": record["malignant_score"] if there else None,
                "problem": record["problem"],
            }
        )
    return {
        "model": classifier.name,
        "warning": WARNING,
        "domain_check": classifier.domain_check(any_picture=any_picture),
        "images": rows,
    }


def prediction_text(document: dict[str, Any]) -> str:
    """Return the document for people to read."""
    lines = [
        f"model: {document['model']}",
        f"pictures of another kind: {document['domain_check']}",
    ]
    for row in document["images"]:
        lines += ["", row["image"]]
        if row["problem"] is not None:
            lines.append(f"  no prediction: {row['problem']}")
            continue
        lines.append(f"  malignant {row['malignant_score']:.3f}")
        ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
        lines += [f"  {name:<10} {value:.3f}  {'█' * round(value * 30)}" for name, value in ranked]
    return "\n".join([*lines, "", document["warning"]])
