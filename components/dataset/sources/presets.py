"""How published data sets fill the labels table: presets of the kind `table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """One published data set.

    Parameters
    ----------
    tables
        Patterns of its table's name; the first that fits.
    columns
        Column of the labels table -> column of the data set's.
    optional
        Those of `columns` that some versions lack.
    one_hot
        Columns that are diagnoses: exactly one of them is 1 in a row.
    details, details_key
        Pattern of a second table with more columns, and the column that both share.
    values
        Column of the labels table -> value in small letters -> value to write.
    lesion_prefix
        Put before lesion ids that are mere numbers, and could be another data set's.
    licence, attribution
        For the manifest.
    """

    tables: tuple[str, ...]
    columns: Mapping[str, str]
    licence: str
    attribution: str
    optional: frozenset[str] = frozenset()
    one_hot: tuple[str, ...] = ()
    details: str | None = None
    details_key: str = ""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lesion_prefix: str = ""


PRESETS = {
    "isic2019": Preset(
        tables=("ISIC_2019_Training_GroundTruth.csv",),
        columns={
            "image_id": "image",
            "lesion_id": "lesion_id",
            "age_years": "age_approx",
            "sex": "sex",
            "site": "anatom_site_general",
        },
        one_hot=("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"),
        details="ISIC_2019_Training_Metadata.csv",
        details_key="image",
        licence="CC BY-NC 4.0",
        attribution="ISIC 2019 challenge: HAM10000 (Tschandl et al. 2018), BCN_20000 (Combalia et "
        "al. 2019), MSK (Codella et al. 2018)",
    ),
    "isic2020": Preset(
        tables=(
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "ISIC_2020_Training_GroundTruth.csv",
            "train.csv",
        ),
        columns={
            "image_id": "image_name",
            "patient_id": "patient_id",
            "lesion_id": "lesion_id",
            "diagnosis": "benign_malignant",
            "age_years": "age_approx",
            "sex": "sex",
            "site": "anatom_site_general_challenge",
        },
        optional=frozenset({"lesion_id"}),
        licence="CC BY-NC 4.0",
        attribution="SIIM-ISIC 2020 challenge: Rotemberg et al., A patient-centric dataset of "
        "images and metadata for identifying melanomas using clinical context (2021); "
        "doi:10.34970/2020-ds01",
    ),
    "pad-ufes-20": Preset(
        tables=("metadata.csv",),
        columns={
            "image_id": "img_id",
            "patient_id": "patient_id",
            "lesion_id": "lesion_id",
            "diagnosis": "diagnostic",
            "diagnosis_method": "biopsed",
            "age_years": "age",
            "sex": "gender",
            "site": "region",
            "skin_type": "fitspatrick",
        },
        values={"diagnosis_method": {"true": "histo", "false": "consensus"}},
        lesion_prefix="PAD_",
        licence="CC BY 4.0",
        attribution="Pacheco et al.: PAD-UFES-20, a skin lesion dataset composed of patient data "
        "and clinical images collected from smartphones (2020); doi:10.17632/zr7vgbcyr2.1",
    ),
}
