"""What `params.yaml` says of the checks on labels and images: severities and thresholds.

Every check has a severity: `error` stops the run, `quarantine` leaves the image out by name,
`warning` is reported, `off` is not looked at. A recipe names only what it changes: the other
values of a check stay as they are here.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.settings import Settings

Severity = Literal["error", "quarantine", "warning", "off"]
TableSeverity = Literal["error", "warning", "off"]
"""For what is said of the whole snapshot: there is no image that could be left out."""

SEXES = ("female", "male")
SITES = (
    # HAM10000
    "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand",
    "lower extremity", "neck", "scalp", "trunk", "upper extremity",
    # ISIC 2019, ISIC 2020 and the ISIC archive
    "anterior torso", "head/neck", "lateral torso", "oral/genital", "palms/soles",
    "posterior torso", "torso",
    # PAD-UFES-20
    "arm", "forearm", "lip", "nose", "thigh",
)  # fmt: skip


class _Section(Settings):
    """A group of checks in which a recipe may change single values of a check."""

    @model_validator(mode="before")
    @classmethod
    def _keep_other_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        merged = {}
        for name, value in given.items():
            field = cls.model_fields.get(name)
            default = field.default if field else None
            if isinstance(value, dict) and isinstance(default, Settings):
                value = default.model_dump() | value  # noqa: PLW2901
            merged[name] = value
        return merged


class ImageRule(Settings):
    """A rule that single images keep or break."""

    severity: Severity


class Usable(Settings):
    """A rule without which an image cannot be trained on: it stops the run, or the image goes."""

    severity: Literal["error", "quarantine"]


class TableRule(Settings):
    """A rule about the snapshot as a whole."""

    severity: TableSeverity


class AtLeast(ImageRule):
    min: float


class AtMost(ImageRule):
    max: float


class Within(ImageRule):
    min: float
    max: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min:g}) is above max ({self.max:g})")
        return self


class Words(ImageRule):
    values: tuple[str, ...] = Field(min_length=1, strict=False)


class Numbers(ImageRule):
    values: tuple[float, ...] = Field(min_length=1, strict=False)


class MissingShares(TableRule):
    """Largest share of the images that may lack a value; null: not looked at."""

    lesion_id: float | None = Field(default=0.1, ge=0, le=1)
    age_years: float | None = Field(default=0.1, ge=0, le=1)
    sex: float | None = Field(default=0.1, ge=0, le=1)
    site: float | None = Field(default=0.25, ge=0, le=1)
    patient_id: float | None = Field(default=None, ge=0, le=1)
    diagnosis_method: float | None = Field(default=None, ge=0, le=1)
    skin_type: float | None = Field(default=None, ge=0, le=1)


class EnoughGroups(TableRule):
    """Least number of groups (patient, lesion, near-duplicates) per class."""

    min: int | None = Field(default=None, ge=1)
    """null: as many as the split needs to give some to each part and fold."""


class Drift(TableRule):
    """Difference from the last snapshot, as a population stability index."""

    max_psi: float = Field(default=0.2, gt=0)
    """Below 0.1 is called stable, above 0.2 or 0.25 shifted; raised by what chance explains."""


class LabelRules(_Section):
    """Checks on the labels table."""

    known_diagnoses: Usable = Usable(severity="error")
    one_diagnosis_per_lesion: ImageRule = ImageRule(severity="quarantine")
    same_file: ImageRule = ImageRule(severity="warning")
    """An image id that was split before has the file of then (or a lesion or patient that ties it
    to that): otherwise the split takes it for a new image."""
    age_years: Within = Within(severity="error", min=0, max=120)
    age_placeholders: Numbers = Numbers(severity="warning", values=(0.0,))
    sex: Words = Words(severity="warning", values=SEXES)
    site: Words = Words(severity="warning", values=SITES)
    missing: MissingShares = MissingShares(severity="warning")
    enough_groups: EnoughGroups = EnoughGroups(severity="error")
    class_balance: Drift = Drift(severity="warning")


class ImageRules(_Section):
    """Checks on the measured images; units as in `components/dataset/measures.py`.

    The bounds lie outside of everything that HAM10000 and the melanoma class folders hold: what
    breaks them is no usual dermoscopic picture.
    """

    present: Usable = Usable(severity="quarantine")
    listed: TableRule = TableRule(severity="warning")
    listed_once: TableRule = TableRule(severity="warning")
    decodable: Usable = Usable(severity="quarantine")
    shorter_side: AtLeast = AtLeast(severity="quarantine", min=32)
    aspect: Within = Within(severity="warning", min=0.4, max=2.5)
    contrast: AtLeast = AtLeast(severity="quarantine", min=0.008)
    """Blank: one colour all over. The flattest real image has 0.019."""
    entropy: AtLeast = AtLeast(severity="quarantine", min=1.0)
    """Blank but for some writing. The simplest real image has 3.9 bits."""
    brightness: Within = Within(severity="warning", min=0.15, max=0.95)
    sharpness: AtLeast = AtLeast(severity="warning", min=4.0)
    colourfulness: AtLeast = AtLeast(severity="warning", min=4.0)
    vignette_share: AtMost = AtMost(severity="warning", max=0.5)
    duplicates: ImageRule = ImageRule(severity="warning")
    drift: Drift = Drift(severity="warning")


class BetweenRules(_Section):
    """Checks on pictures that show the same."""

    same_picture: ImageRule = ImageRule(severity="quarantine")
    """The same bytes or the same pixels under two diagnoses."""
    same_spot: ImageRule = ImageRule(severity="quarantine")
    """One spot photographed twice under two diagnoses."""
    label_conflicts: ImageRule = ImageRule(severity="quarantine")
    """A picture that the sources hold twice, with another diagnosis each time."""
    near_duplicates: ImageRule = ImageRule(severity="warning")
    """Pictures of one spot under different lesion ids: they become one group."""


class ValidationParams(_Section):
    """Severities and thresholds of the checks."""

    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    labels: LabelRules = LabelRules()
    images: ImageRules = ImageRules()
    between: BetweenRules = BetweenRules()
