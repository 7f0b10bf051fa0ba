"""Pretrained weights: where they are to be had, and how they get into a model.

`resolve_weights` turns what `params.yaml` says into a file on this node and its hash;
`content_of` tells own weights from others under the same name, without fetching them; `load_into`
puts a file into a model. There is no silent random start: what cannot be had, opened or
fitted raises `WeightsError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.backbones.entry import Backbone
from components.backbones.fetch import (
    check_name,
    default_cache,
    fetch,
    is_s3,
    s3_etag,
    sha256_of,
)
from components.backbones.keymaps import LAYOUTS, State
from components.backbones.model_file import MODEL_JSON, Member, ModelFile, read_model
from components.backbones.published import find_published
from components.backbones.tensors import copy_tensors, is_ours, read_tensors, tensor_names
from components.backbones.zoo import backbone
from components.errors import WeightsError

if TYPE_CHECKING:
    from components.backbones.heads import Classifier

_REGISTERED = "registry:"


@dataclass(frozen=True)
class WeightsFile:
    """Weights that a training starts from.

    Attributes
    ----------
    path
        On this node; None: random start (`none`).
    origin
        Where they come from, for the model's provenance: no path of this machine, unless
        `params.yaml` names one.
    sha256
        Of the file; empty for `none`.
    layout
        Names of the tensors: a key of `keymaps.LAYOUTS`.
    classes
        Of the model that is started from (warm start); empty for published files, and where no
        `model.json` beside the file knows it.
    our_model
        Whether they are of a model of ours, which has seen labels and images of its own.
    """

    path: Path | None
    origin: str
    sha256: str = ""
    layout: str = "upstream"
    classes: tuple[str, ...] = ()
    our_model: bool = False

    def provenance(self) -> dict[str, str | bool]:
        """What `model.json` records."""
        return {"origin": self.origin, "sha256": self.sha256, "our_model": self.our_model}


def resolve_weights(
    spec: str,
    name: str,
    *,
    base: Path | None = None,
    registry: str | None = None,
    cache: Path | None = None,
) -> WeightsFile:
    """Find the weights that `spec` means for backbone `name` and bring them to this node.

    Parameters
    ----------
    spec
        `imagenet`: the published file, from `LESIONFLOW_WEIGHTS` (a folder or an `s3://` prefix)
        if it is there under its published name, else from the package that carries it, else from
        this node's caches, else from the internet. `none`: a random start. `registry:<version>`:
        an earlier version of our registry. Else a path or an `s3://` URI of a file, or of a folder
        with a `model.json`.
    name
        Of the backbone.
    base
        Folder that a relative path starts from (the workspace); default: the current one.
    registry
        Folder or `s3://` prefix of the registry's model, `<registry.uri>/<registry.model_name>`.
    cache
        Folder of this node for what is fetched.

    Raises
    ------
    WeightsError
        They are not to be had, or do not have the hash that their name carries.
    """
    entry = backbone(name)
    cache = cache or default_cache()
    if spec == "none":
        return WeightsFile(None, "none (random start)")
    if spec == "imagenet":
        path, origin, published = find_published(entry, cache)
        return _checked(path, origin, published.layout)
    folder = _folder(spec, registry)
    found = _model_folder(folder, spec, entry, base, cache)
    return found or _given(spec, folder, entry, base, cache)


def content_of(
    spec: str,
    name: str,
    *,
    base: Path | None = None,
    registry: str | None = None,
    cache: Path | None = None,
) -> str | None:
    """Return what changes when other weights stand under the same `spec`.

    Parameters
    ----------
    spec, name, base, registry, cache
        As `resolve_weights`.

    Returns
    -------
    str or None
        `sha256:…` of a file or of the backbone's member of a model (on S3 as its `model.json`
        states it); `etag:…` of a file on S3. No weights are fetched. None for `none` and
        `imagenet`: a published file is the one that its name says.

    Raises
    ------
    WeightsError
        They are not to be had.
    """
    if spec in ("none", "imagenet"):
        return None
    entry = backbone(name)
    cache = cache or default_cache()
    folder = _folder(spec, registry)
    sha256 = _sha256_in(folder, spec, entry, base, cache)
    if sha256 is None and is_s3(spec):
        etag = s3_etag(spec)
        if etag is None:
            raise _not_there(spec, folder, base)
        return f"etag:{etag}"
    return f"sha256:{sha256 or sha256_of(_file(spec, folder, base, cache))}"


def load_into(
    model: Classifier, name: str, weights: WeightsFile, classes: Sequence[str] = ()
) -> None:
    """Copy `weights` into `model` (backbone `name`), whose parameters become float32.

    The head stays new, unless the weights are of a model of ours with the very same `classes`.

    Raises
    ------
    WeightsError
        The file is not made of plain tensors, or anything but the head does not match; the
        message lists what. Or the file is another one than `weights` tells of.
    """
    if weights.path is None:
        return
    if sha256_of(weights.path) != weights.sha256:
        raise WeightsError(
            "the file was changed after the training was begun with it",
            where=weights.origin,
            fix="run `lesionflow retrain` again: it begins anew with the file as it is then",
        )
    state = read_tensors(weights.path)
    if is_ours(state):
        if weights.classes and weights.classes == tuple(classes):
            copy_tensors(model.head, _below("head.", state), origin=weights.origin)
        copy_tensors(model.body, _below("body.", state), origin=weights.origin)
        return
    heads = tuple(f"{prefix}." for prefix in backbone(name).head)
    converted = LAYOUTS[weights.layout](state)
    body = {key: value for key, value in converted.items() if not key.startswith(heads)}
    copy_tensors(model.body, body, origin=weights.origin)


def _below(prefix: str, state: State) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _folder(spec: str, registry: str | None) -> str:
    """Return where a model may lie that `spec` means: a version of the registry, or `spec`."""
    if not spec.startswith(_REGISTERED):
        return spec
    version = spec.removeprefix(_REGISTERED)
    if not re.fullmatch(r"v?\d+", version):
        raise WeightsError(
            f"{spec!r} names no version",
            where="training.weights",
            fix="write registry:v0001, say; an alias such as champion moves, and would make the "
            "same parameters mean another training",
        )
    if registry is None:
        raise WeightsError(
            f"{spec!r}, but no registry is known here",
            where="training.weights",
            fix="set registry.uri and registry.model_name",
        )
    return f"{registry.rstrip('/')}/versions/v{int(version.removeprefix('v')):04d}"


def _given(spec: str, folder: str, entry: Backbone, base: Path | None, cache: Path) -> WeightsFile:
    path = _file(spec, folder, base, cache)
    parent, slash, name = spec.rpartition("/")
    layouts = {name: published.layout for published in entry.published for name in published.names}
    weights = _checked(path, spec, layouts.get(name, "upstream"))
    if not _has_our_names(path):
        return weights
    document = fetch(parent or slash or ".", MODEL_JSON, cache, base)
    beside = read_model(document.parent) if document else None
    known = beside and weights.sha256 in {member.sha256 for member in beside.members}
    return replace(weights, classes=beside.classes if beside and known else (), our_model=True)


def _file(spec: str, folder: str, base: Path | None, cache: Path) -> Path:
    parent, slash, name = spec.rpartition("/")
    registered = spec.startswith(_REGISTERED)
    path = fetch(parent or slash or ".", name, cache, base) if name and not registered else None
    if path is None:
        raise _not_there(spec, folder, base)
    return path


def _not_there(spec: str, folder: str, base: Path | None) -> WeightsError:
    if spec.startswith(_REGISTERED):
        return WeightsError(
            f"the registry has no version {spec.removeprefix(_REGISTERED)}",
            where=folder,
            fix="`lesionflow models` lists the versions",
        )
    return WeightsError(
        f"there is no weights file {spec!r}",
        where=str((base or Path.cwd()) / spec) if not is_s3(spec) else spec,
        fix="correct `weights` (imagenet, none, a path, an s3:// URI, registry:<version>)",
    )


def _has_our_names(path: Path) -> bool:
    """Whether a file holds a model of ours; what cannot be opened is refused when it is loaded."""
    try:
        return is_ours(tensor_names(path))
    except WeightsError:
        return False


def _checked(path: Path, origin: str, layout: str) -> WeightsFile:
    digest = sha256_of(path)
    check_name(path, digest, origin=origin)
    return WeightsFile(path, origin, digest, layout)


def _model_folder(
    folder: str, origin: str, entry: Backbone, base: Path | None, cache: Path
) -> WeightsFile | None:
    """Return the member of backbone `entry` in a folder with a `model.json`; None: none there."""
    found = _member_in(folder, origin, entry, base, cache)
    if found is None:
        return None
    model_file, member = found
    path = fetch(folder, member.file, cache, base)
    if path is None or (digest := sha256_of(path)) != member.sha256:
        raise WeightsError(
            f"{member.file} is missing or damaged", where=origin, fix="fetch the model again"
        )
    return WeightsFile(path, origin, digest, classes=model_file.classes, our_model=True)


def _sha256_in(
    folder: str, origin: str, entry: Backbone, base: Path | None, cache: Path
) -> str | None:
    """Return the SHA-256 of what `_model_folder` finds; S3 is taken at its `model.json`'s word."""
    if not is_s3(folder):
        weights = _model_folder(folder, origin, entry, base, cache)
        return weights.sha256 if weights else None
    found = _member_in(folder, origin, entry, base, cache)
    return found[1].sha256 if found else None


def _member_in(
    folder: str, origin: str, entry: Backbone, base: Path | None, cache: Path
) -> tuple[ModelFile, Member] | None:
    """Return what a `model.json` in `folder` says, and its member of backbone `entry`."""
    document = fetch(folder, MODEL_JSON, cache, base)
    if document is None:
        return None
    model_file = read_model(document.parent)
    for member in model_file.members:
        if member.backbone == entry.name:
            return model_file, member
    raise WeightsError(
        f"the model has no member of backbone {entry.name}, only "
        + ", ".join(sorted({member.backbone for member in model_file.members})),
        where=origin,
        fix="start that backbone from it, or give other weights",
    )
