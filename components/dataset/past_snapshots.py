"""Snapshots of the past: which of those that DVC holds have a given image, and in which commits."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.layout import Layout


@dataclass(frozen=True)
class PastSnapshots:
    """Where older snapshots may be.

    Attributes
    ----------
    cached
        Those in DVC's cache that have one of the images: `version` (DVC's hash of `data/raw`),
        `commits` (abbreviated, newest first, whose `dvc.lock` names it) and `images` (ids).
    not_looked_into
        Those that a commit names and DVC's cache lacks (nobody pulled them here): `version` and
        `commits`.
    remotes
        Name and address of each DVC remote.
    """

    cached: list[dict[str, Any]]
    not_looked_into: list[dict[str, Any]]
    remotes: list[str]


def past_snapshots(layout: Layout, image_ids: Set[str], hashes: Set[str]) -> PastSnapshots | None:
    """Look for snapshots with one of the images, by its id then or now, or by its sha256.

    None where there is no DVC repository.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(layout.root)) as repo:
            cache = Path(repo.cache.local.path)
            remotes = {name: facts["url"] for name, facts in repo.config["remote"].items()}
    except NotDvcRepoError:
        return None
    commits = _commits(layout)
    listings = {f"{path.parent.name}{path.name}": path for path in sorted(cache.glob("??/*.dir"))}
    cached, not_looked_into = [], [version for version in commits if version not in listings]
    for version, listing in listings.items():
        content = {
            entry["relpath"]: str(entry["md5"])
            for entry in json.loads(listing.read_text(encoding="utf-8"))
        }
        if not {"manifest.json", "labels.parquet"} <= set(content):
            continue  # another folder that DVC keeps
        names, labels = _single_files(content), _labels(cache, content["labels.parquet"])
        if labels is None and not names:
            not_looked_into.append(version)
            continue
        images = image_ids & names
        if labels is not None:
            found = labels["image_id"].isin(image_ids) | labels["sha256"].isin(hashes)
            images |= set(labels["image_id"][found & labels["sha256"].notna()])
        if images:
            known = commits.get(version, [])
            cached.append({"version": version, "commits": known, "images": sorted(images)})
    return PastSnapshots(
        cached,
        [{"version": version, "commits": commits.get(version, [])} for version in not_looked_into],
        [f"{name} {url}" for name, url in sorted(remotes.items())],
    )


def _single_files(content: Mapping[str, str]) -> set[str]:
    """Return the ids of images whose files lie one by one, as in snapshots of earlier versions."""
    paths = (PurePosixPath(path) for path in content)
    return {path.stem for path in paths if path.parts[0] == "images" and path.suffix != ".zip"}


def _labels(cache: Path, md5: str) -> pd.DataFrame | None:
    """Return a snapshot's labels; None where the cache lacks them."""
    try:
        return pd.read_parquet(cache / md5[:2] / md5[2:], columns=["image_id", "sha256"])
    except (OSError, ValueError):
        return None


def _commits(layout: Layout) -> dict[str, list[str]]:
    """Return version of `data/raw` -> the commits whose `dvc.lock` names it."""
    history = _git(layout, "log", "--all", "--format=%h", "--", "dvc.lock") or ""
    path = layout.raw.relative_to(layout.root).as_posix()
    found: dict[str, list[str]] = {}
    for commit in history.split():
        text = _git(layout, "show", f"{commit}:./dvc.lock")
        try:
            stages = (YAML(typ="safe").load(text or "") or {}).get("stages", {})
        except YAMLError:
            continue  # a commit with a merge conflict in it
        for output in stages.get("ingest", {}).get("outs", []):
            if output["path"] == path:
                found.setdefault(output["md5"], []).append(commit)
    return found


def _git(layout: Layout, *arguments: str) -> str | None:
    """Return what Git says, or None where it fails (no repository, no such file)."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=layout.root,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
