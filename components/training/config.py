"""What `params.yaml` says of a training: the recipe, and what a backbone changes in it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from components.settings import Settings


class TrainingParams(Settings):
    """The recipe of one training; `backbones.<name>` may set any of these keys anew."""

    weights: str = Field(default="imagenet", min_length=1)
    """`imagenet`, `none`, a path, an `s3://` URI, or `registry:<version>` (warm start)."""
    image_size: int = Field(default=128, ge=16, le=1024)
    epochs: int = Field(default=10, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=2, le=4096)
    """Of all workers together."""

    # --- what is trained, and how fast ---------------------------------------------------
    head_epochs: int = Field(default=0, ge=0, le=1000)
    """Epochs of the new head alone, on cached features of the frozen network, before the rest."""
    head_learning_rate: float = Field(default=1e-2, gt=0)
    unfreeze: Literal["all", "last_block", "none"] = "all"
    """What trains besides the head; `none`: only the head, on cached features, for `epochs`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the head and the last block, at the top of the schedule (warm-up, then cosine to 0)."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each block further from the head has its learning rate multiplied by this once more."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Of AdamW; norms and biases have none."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Moving average of the weights, which is what is judged and saved; 0: off."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation balanced accuracy; null: never."""

    # --- imbalance -----------------------------------------------------------------------
    sampling_power: float = Field(default=0.5, ge=0, le=1)
    """A class with n images is drawn in proportion to n to this power: 1 as they are, 0 evenly."""
    epoch_images: int | None = Field(default=None, ge=1)
    """Images drawn in an epoch; null: as many as the training part has."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = Field(default=2.0, ge=0)
    class_weight_power: float = Field(default=0.0, ge=0, le=1)
    """A class with n images weighs in proportion to n to minus this power; 0: all the same."""
    logit_adjustment: float = Field(default=0.0, ge=0, le=2)
    """Times log prior is added to the logits in the loss (Menon et al. 2021); 0: off."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    # --- augmentation --------------------------------------------------------------------
    augmentation: float = Field(default=1.0, ge=0, le=3)
    """Strength of turning, zooming, shifting and colour; 0: none at all, not even flips."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of mixup (Zhang et al. 2018), in every batch; 0: off."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of CutMix (Yun et al. 2019); with mixup on, each batch gets one of the two."""
    cutout: float = Field(default=0.0, ge=0, lt=1)
    """Side of one grey square per image, as a share of the image's side; 0: off."""
    tta: bool = False
    """The finished model averages over the eight flips and quarter turns of each image."""

    # --- where and how it runs -----------------------------------------------------------
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 where the device computes it faster, fp32 elsewhere."""
    num_workers: int = Field(default=1, ge=1)
    """Ray Train workers (data parallel)."""
    threads: int = Field(default=1, ge=1)
    """torch threads of a worker: part of the result on a CPU."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    gpus_per_worker: float = Field(default=0.0, ge=0)
    max_failures: int = Field(default=3, ge=0)
    """How often a worker that was lost (killed, out of memory) is started again."""

    @model_validator(mode="after")
    def _batch_feeds_every_worker(self) -> Self:
        if self.batch_size < 2 * self.num_workers:
            raise ValueError(
                f"batch_size {self.batch_size} is less than two images for each of "
                f"{self.num_workers} workers"
            )
        return self
