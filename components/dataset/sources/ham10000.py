"""HAM10000 as it is downloaded: images in any folders or zips, and one metadata table.

Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic
images of common pigmented skin lesions. Scientific Data 5, 180161 (2018). doi:10.7910/DVN/DBW86T
"""

from __future__ import annotations

import pandas as pd

from components.dataset.sources.files import Files
from components.dataset.sources.listing import (
    ages,
    diagnoses,
    find_images,
    find_table,
    ids,
    image_ids,
    image_keys,
    match_images,
    one_row_per_image,
    read_source_table,
    sexes,
    sites,
    words,
)
from components.dataset.sources.source import SourceImages

LICENCE = "CC BY-NC 4.0"
ATTRIBUTION = (
    "Tschandl P., Rosendahl C., Kittler H.: The HAM10000 dataset (2018), "
    "ViDIR Group, Department of Dermatology, Medical University of Vienna; doi:10.7910/DVN/DBW86T"
)
DOI_FILES = ("HAM10000_images_part*", "HAM10000_metadata*")
"""Of the data set; the rest are segmentations and another challenge's test set."""

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_MASK_SUFFIX = "_segmentation.png"


def read(files: Files) -> SourceImages:
    """Read the metadata and match it with the images."""
    name = find_table(
        files,
        ["HAM10000_metadata", "HAM10000_metadata.*"],
        fix="put the metadata table of the download (HAM10000_metadata, .csv or .tab) beside the "
        "images; for data of another kind choose another recipe",
    )
    table, where = read_source_table(files, name, _COLUMNS)
    keys = image_keys(table["image_id"])
    labels = pd.DataFrame(
        {
            "image_id": image_ids(keys, where=where),
            "patient_id": None,
            "lesion_id": ids(table["lesion_id"]),
            "diagnosis": diagnoses(table["dx"]),
            "diagnosis_method": words(table["dx_type"]),
            "age_years": ages(table["age"], where=where),
            "sex": sexes(table["sex"]),
            "site": sites(table["localization"]),
            "skin_type": None,
        }
    )
    names = [name for name in find_images(files) if not name.endswith(_MASK_SUFFIX)]
    found, not_listed = match_images(names, dict(zip(keys, labels["image_id"], strict=True)), files)
    labels, seen_twice = one_row_per_image(labels, where=where)
    return SourceImages(
        labels=labels,
        files=found,
        read=files.read,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        present_but_not_listed=not_listed,
        seen_twice=seen_twice,
    )
