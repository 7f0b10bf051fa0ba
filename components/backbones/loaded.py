"""What predicts with a saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.backbones.inference import (
    Floats,
    eight_views,
    exact_float32,
    images_at_once,
    softmax,
)
from components.backbones.model_file import Member, ModelFile
from components.errors import RegistryError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from components.backbones.heads import Classifier
    from components.dataset.decode import PackSpec


_FILES_AT_ONCE = 64


class LoadedModel:
    """Predicts in float32, without anything random; see `load_model`."""

    def __init__(
        self, model_file: ModelFile, networks: Sequence[Classifier], device: torch.device
    ) -> None:
        self.file = model_file
        self.networks = tuple(networks)
        self.device = device

    @property
    def pack_specs(self) -> tuple[PackSpec, ...]:
        """The distinct ways in which the members want pictures to be decoded."""
        return tuple(dict.fromkeys(m.preprocessing.pack_spec for m in self.file.members))

    def predict_bytes(self, images: Sequence[bytes]) -> Floats:
        """Return probabilities `[N, C]` of image files given as bytes.

        Raises
        ------
        UndecodableImage
            One of them is no picture.
        """
        from components.dataset.decode import decode_to_square

        parts = [np.zeros((0, len(self.file.classes)))]
        for start in range(0, len(images), _FILES_AT_ONCE):
            chunk = images[start : start + _FILES_AT_ONCE]
            squares = {
                spec: np.stack([decode_to_square(data, spec) for data in chunk])
                for spec in self.pack_specs
            }
            parts.append(self.predict_proba(squares))
        return np.concatenate(parts)

    def predict_proba(
        self,
        squares: npt.NDArray[np.uint8] | Mapping[PackSpec, npt.NDArray[np.uint8]],
        rows: npt.NDArray[np.int64] | None = None,
        batch_size: int | None = None,
        tta: bool | None = None,
    ) -> Floats:
        """Return probabilities `[N, C]`: the weighted mean of the members' calibrated ones.

        Parameters
        ----------
        squares
            uint8 `[N, S, S, 3]`, an array or a memory map; for members that want different
            squares one of each of `pack_specs`.
        rows
            Which squares, in this order; None: all.
        batch_size
            Pictures at once, None: as many as suit the device; the result does not depend on it
            (to 1e-5).
        tta
            None: as `model.json` says of each member.
        """
        total = np.zeros(())
        for index, member in enumerate(self.file.members):
            mine = self._squares(squares, member)
            logits = self.logits(index, mine, rows=rows, batch_size=batch_size, tta=tta)
            total = total + member.weight * softmax(logits / member.temperature)
        return total / sum(member.weight for member in self.file.members)

    def logits(
        self,
        member: int,
        squares: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64] | None = None,
        batch_size: int | None = None,
        tta: bool | None = None,
    ) -> Floats:
        """Return the logits `[N, C]` of one member, before its temperature.

        With `tta` they are the mean over the eight views. Parameters as `predict_proba`.

        Raises
        ------
        RegistryError
            A logit is not a finite number.
        """
        import torch

        wanted = np.arange(len(squares)) if rows is None else np.asarray(rows)
        averaged = self.file.members[member].tta if tta is None else tta
        size = self.file.members[member].preprocessing.image_size
        together = batch_size or images_at_once(size, self.device)
        parts = [np.zeros((0, len(self.file.classes)))]
        with exact_float32(), torch.inference_mode():
            for start in range(0, len(wanted), together):
                batch = torch.from_numpy(squares[wanted[start : start + together]])
                out = self._forward(member, batch.to(self.device), averaged)
                parts.append(out.double().cpu().numpy())
        result = np.concatenate(parts)
        if not np.isfinite(result).all():
            raise RegistryError(
                "the network gives numbers that are not finite",
                where=f"member {member} ({self.file.members[member].file})",
                fix="train it again; do not promote it",
            )
        return result

    def _forward(self, member: int, squares: Tensor, tta: bool) -> Tensor:
        images = self.file.members[member].preprocessing.to_input(squares)
        network = self.networks[member]
        if not tta:
            return network(images)  # type: ignore[no-any-return]
        outputs = [network(view) for view in eight_views(images)]
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total / len(outputs)  # type: ignore[no-any-return]

    def _squares(
        self,
        squares: npt.NDArray[np.uint8] | Mapping[PackSpec, npt.NDArray[np.uint8]],
        member: Member,
    ) -> npt.NDArray[np.uint8]:
        if isinstance(squares, Mapping):
            return squares[member.preprocessing.pack_spec]
        if len(self.pack_specs) > 1:
            raise ValueError(
                f"the members want different squares: give one array for each of {self.pack_specs}"
            )
        return squares
