"""What `params.yaml` says of the split."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from components.settings import Settings


class SplitParams(Settings):
    """Shares of the parts (of each diagnosis' groups) and the number of folds."""

    train: float = Field(default=0.7, gt=0, lt=1)
    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    folds: int = Field(default=0, ge=0, le=20)
    """0: the validation part is fixed; k >= 2: the run with seed s validates on fold s mod k."""
    official_test: bool = False
    """True: images whose source ends in `:test` are the test part, exactly as they were given;
    the other two shares divide the rest."""

    max_left_out_share: float = Field(default=0.1, ge=0, le=1)
    """Images without another fault that ties to a stronger part may leave out, as a share."""

    @model_validator(mode="after")
    def _shares_make_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, they make {total:g}")
        if self.folds == 1:
            raise ValueError("folds must be 0 (off) or at least 2")
        return self

    def shares(self) -> dict[str, float]:
        """Share of each part that is dealt; it has no `test` where that is given."""
        if self.official_test:
            rest = self.train + self.validation
            return {"train": self.train / rest, "validation": self.validation / rest}
        return {"train": self.train, "validation": self.validation, "test": self.test}
