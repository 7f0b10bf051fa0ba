"""The synthetic source: pictures of nobody's skin, for trying everything out.

Lesion k depends on the seed and on k alone: a source with more lesions begins with the same ones.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.dataset.sources.config import SyntheticOptions
from components.dataset.sources.source import SourceImages

GENERATOR_VERSION = 1
"""To be raised with every change that changes a byte of a picture or of a label."""

_BLOCK = ("nv",) * 8 + ("mel",) * 3 + ("bkl",) * 3 + ("bcc",) * 2 + ("akiec",) * 2 + ("vasc", "df")
"""Diagnoses of 20 lesions, shuffled anew for each 20: HAM10000's order of frequency, less steep."""
_VIEWS = (1, 2, 3, 4)
_VIEW_SHARES = (0.35, 0.33, 0.22, 0.10)
_BROKEN = {4: "truncated", 9: "empty", 13: "no image", 17: "absent"}
"""Lesion number -> what is wrong with one more picture of it."""
_SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest")


Pixels = npt.NDArray[np.float32]


class _View(NamedTuple):
    lesion: int
    view: int
    diagnosis: str
    problem: str


def fingerprint(options: SyntheticOptions) -> str:
    """Return the identity of the pictures and labels that `options` describe."""
    drawn = options.model_dump(include={"lesions", "image_size", "seed", "broken"})
    document = json.dumps({"version": GENERATOR_VERSION, **drawn}, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


def read(options: SyntheticOptions) -> SourceImages:
    """Return the labels, and pictures that are drawn when they are asked for."""
    views: dict[str, _View] = {}
    rows = []
    for lesion in range(options.lesions):
        facts = _lesion_facts(options.seed, lesion)
        count = _num_views(options.seed, lesion)
        problem = _BROKEN.get(lesion, "") if options.broken else ""
        for view in range(count + bool(problem)):
            image_id = f"SYN_{len(views) + 1:07d}"
            wrong = problem if view == count else ""
            views[image_id] = _View(lesion, view, str(facts["diagnosis"]), wrong)
            rows.append({"image_id": image_id, "patient_id": None, "skin_type": None, **facts})

    def draw(name: str) -> bytes:
        return _picture(options, views[name.removesuffix(".jpg")])

    return SourceImages(
        labels=pd.DataFrame(rows),
        files={name: f"{name}.jpg" for name, view in views.items() if view.problem != "absent"},
        read=draw,
        licence="CC0-1.0",
        attribution="Drawn by Lesionflow's synthetic generator; shows no patient and no lesion",
        synthetic=True,
    )


def _lesion_facts(seed: int, lesion: int) -> dict[str, object]:
    """Return one lesion's labels."""
    block, place = divmod(lesion, len(_BLOCK))
    diagnosis = np.random.default_rng((seed, 1, block)).permutation(_BLOCK)[place]
    rng = np.random.default_rng((seed, 2, lesion))
    age = 5 * rng.integers(4, 18)
    method = "histo" if diagnosis in {"akiec", "bcc", "mel"} or rng.uniform() < 0.4 else "follow_up"
    return {
        "lesion_id": f"SYNL_{lesion + 1:05d}",
        "diagnosis": str(diagnosis),
        "diagnosis_method": method,
        "age_years": None if rng.uniform() < 0.03 else float(age),
        "sex": None if rng.uniform() < 0.02 else str(rng.choice(["female", "male"])),
        "site": None if rng.uniform() < 0.04 else str(rng.choice(_SITES)),
    }


def _num_views(seed: int, lesion: int) -> int:
    return int(np.random.default_rng((seed, 5, lesion)).choice(_VIEWS, p=_VIEW_SHARES))


def _picture(options: SyntheticOptions, view: _View) -> bytes:
    from components.dataset.sources.pictures import take_view

    if view.problem == "empty":
        return b""
    if view.problem == "no image":
        return b"This is a text file that somebody called .jpg.\n"
    scene = _scene(options.seed, options.image_size, view.lesion, view.diagnosis)
    rng = np.random.default_rng((options.seed, 4, view.lesion, view.view))
    data = take_view(scene, options.image_size, rng)
    return data[: len(data) * 2 // 5] if view.problem == "truncated" else data


@lru_cache(maxsize=8)
def _scene(seed: int, image_size: int, lesion: int, diagnosis: str) -> Pixels:
    from components.dataset.sources.pictures import LOOKS, blend, draw_scene

    rng = np.random.default_rng((seed, 3, lesion))
    other = LOOKS[str(rng.choice(sorted(set(LOOKS) - {diagnosis})))]
    return draw_scene(blend(LOOKS[diagnosis], other, 0.6 * rng.beta(1.2, 3)), image_size, rng)
