"""Where a published ImageNet file may be: a folder, a package, this node's caches, the web."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from components.backbones.entry import Backbone, Published
from components.backbones.fetch import fetch, is_s3, web_fetch
from components.errors import WeightsError

FOLDER_VARIABLE = "LESIONFLOW_WEIGHTS"


def find_published(entry: Backbone, cache: Path) -> tuple[Path, str, Published]:
    """Return the first published file of `entry` that is to be had, and its origin.

    In this order: `LESIONFLOW_WEIGHTS` (a folder or an `s3://` prefix), the package that carries
    it, what was fetched before (by us, torch.hub or the Hugging Face hub), the internet.

    Raises
    ------
    WeightsError
        There is none; the message names the file, what was tried, and what to do.
    """
    tried: list[str] = []
    for candidate in _candidates(entry, cache, tried):
        return candidate
    names = " or ".join(name for published in entry.published for name in published.names)
    urls = [url for published in entry.published if (url := _url(published))]
    source = f" (from {urls[0]}, say)" if urls else ""
    raise WeightsError(
        f"there are no ImageNet weights for {entry.name} ({names})",
        where="; ".join(tried),
        fix=f"put the file under that name{source} into a folder or below an s3:// prefix and set "
        f"{FOLDER_VARIABLE} to it; or start from random weights: "
        f"set backbones.{entry.name}.weights to none",
    )


def _candidates(
    entry: Backbone, cache: Path, tried: list[str]
) -> Iterator[tuple[Path, str, Published]]:
    """Yield files in the order of preference; note in `tried` what was in vain."""
    steps = (_from_variable, _from_package, _from_caches, _from_web)
    for step in steps:
        for published in entry.published:
            yield from ((path, origin, published) for path, origin in step(published, cache, tried))


def _from_variable(
    published: Published, cache: Path, tried: list[str]
) -> Iterator[tuple[Path, str]]:
    location = os.environ.get(FOLDER_VARIABLE, "")
    if not location:
        _note(tried, f"{FOLDER_VARIABLE} is not set")
        return
    if not is_s3(location) and not Path(location).is_dir():
        raise WeightsError(
            f"{FOLDER_VARIABLE} names no folder: {location}",
            where=f"the environment variable {FOLDER_VARIABLE}",
            fix="correct it, or unset it",
        )
    hub_names = [f"{published.hub.rpartition('/')[2]}/model.safetensors"] if published.hub else []
    for name in (*published.names, *hub_names):
        path = fetch(location, name, cache)
        if path is not None:
            where = location.rstrip("/") if is_s3(location) else FOLDER_VARIABLE
            yield path, f"{where}/{name}"
    _note(tried, f"not in {FOLDER_VARIABLE}={location}")


def _from_package(
    published: Published, _cache: Path, tried: list[str]
) -> Iterator[tuple[Path, str]]:
    if not published.package:
        return
    # Found without importing it: its code is not needed.
    found = importlib.util.find_spec(published.package)
    for folder in (found.submodule_search_locations if found else None) or []:
        for name in published.names:
            for path in sorted(Path(folder).rglob(name)):
                yield path, f"package {published.package}/{name}"
    _note(tried, f"not in the package {published.package}")


def _from_caches(
    published: Published, cache: Path, _tried: list[str]
) -> Iterator[tuple[Path, str]]:
    import torch.hub

    if published.url:
        for folder in (cache / "web", Path(torch.hub.get_dir()) / "checkpoints"):
            path = folder / published.names[0]
            if path.is_file():
                yield path, published.url
    if published.hub:
        from huggingface_hub import try_to_load_from_cache

        for found in (
            cache / "web" / published.names[0],
            try_to_load_from_cache(published.hub, "model.safetensors"),
        ):
            if isinstance(found, str | Path) and Path(found).is_file():
                yield Path(found), _url(published)


def _from_web(published: Published, cache: Path, tried: list[str]) -> Iterator[tuple[Path, str]]:
    url = _url(published)
    if not url:
        return
    try:
        yield web_fetch(url, cache, published.names[0]), url
    except OSError as error:
        _note(tried, f"{url}: {getattr(error, 'reason', None) or error}")


def _url(published: Published) -> str:
    if published.url or not published.hub:
        return published.url
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{published.hub}/resolve/main/model.safetensors"


def _note(tried: list[str], text: str) -> None:
    if text not in tried:
        tried.append(text)
