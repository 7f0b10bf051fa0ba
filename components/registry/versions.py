"""The registry of one model name: immutable versions, and which of them is the champion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import RegistryError
from components.layout import Layout
from components.registry import check as checks
from components.registry.aliases import (
    ALIASES,
    CHALLENGER,
    CHAMPION,
    ChampionAlias,
    now,
)
from components.registry.champion import Champion
from components.registry.checksums import Checksums, checksums_of, parse_checksums, verify
from components.registry.config import RegistryParams
from components.registry.looks import Looks
from components.registry.store import (
    MARKER,
    VERSIONS,
    Content,
    Store,
    open_store,
    version_number,
)


@dataclass(frozen=True)
class VersionInfo:
    """One complete version.

    Attributes
    ----------
    name
        Such as `v0001`.
    content_id
        The same for the same model judged on the same data.
    created_at
        UTC, ISO 8601.
    files
        Their names.
    """

    name: str
    content_id: str
    created_at: str
    files: tuple[str, ...]


class Registry:
    """Versions and aliases of one model.

    Parameters
    ----------
    store
        Where they lie.
    model_name
        What the aliases belong to: models of different names are never compared.
    cache
        Folder of this machine for versions that were fetched from S3.
    pinned
        Versions that `prune` keeps.
    """

    def __init__(
        self, store: Store, model_name: str, cache: Path, pinned: tuple[str, ...] = ()
    ) -> None:
        self.store = store
        self.model_name = model_name
        self.champion = ChampionAlias(store)
        self.looks = Looks(store)
        self.cache = cache / "models"
        self._pinned = pinned

    # --- reading -----------------------------------------------------------------------------
    def versions(self) -> list[VersionInfo]:
        """Return the complete versions, oldest first."""
        found = ((name, self._checksums(name)) for name in self.store.versions())
        # Without checksums by now: it was removed since it was listed.
        return [_info(name, sums) for name, sums in found if sums is not None]

    def info(self, version: str) -> VersionInfo:
        """Return what is known of a version without opening it.

        Raises
        ------
        RegistryError
            There is no such version, or its checksums are damaged.
        """
        return _info(version, self.checksums(version))

    def checksums(self, version: str) -> Checksums:
        """Return the checksums of a version; raises as `info`."""
        found = self._checksums(version) if version else None
        if found is None:
            raise self._unknown(version)
        return found

    def _checksums(self, version: str) -> Checksums | None:
        found = self.store.read(f"{VERSIONS}/{version}/{MARKER}")
        return parse_checksums(found.data, where=self.place(version)) if found else None

    def document(self, version: str, name: str) -> Any:
        """Return a small JSON file of a version, such as `metrics.json`."""
        found = self.store.read(f"{VERSIONS}/{version}/{name}")
        if found is None:
            raise self._unknown(f"{version}/{name}")
        return json.loads(found.data)

    def alias(self, name: str) -> str | None:
        """Return the version that `champion`, `challenger` or `previous` names, or None."""
        current = self.champion.read()
        champion = current.version if current else None
        if name == CHALLENGER:  # one that has become champion challenges nobody
            challenger = self.champion.read_challenger()
            return challenger if challenger != champion else None
        if current is None:
            return None
        return champion if name == CHAMPION else current.previous

    def aliases(self) -> dict[str, str]:
        """Return the aliases that name something."""
        found = {name: self.alias(name) for name in ALIASES}
        return {name: version for name, version in found.items() if version is not None}

    def promoted_at(self, name: str) -> str | None:
        """Return when the champion became champion (UTC, ISO 8601); None for other aliases."""
        current = self.champion.read()
        return current.event.at if current and name == CHAMPION else None

    def resolve(self, name: str) -> str:
        """Return the version that a version's or an alias' name means.

        Raises
        ------
        RegistryError
            The alias names nothing, or the version is not there.
        """
        version = name
        if name in ALIASES:
            found = self.alias(name)
            if found is None:
                raise RegistryError(
                    f"{self.model_name} has no {name} yet",
                    where=self.store.uri,
                    fix="`lesionflow retrain` trains models and promotes the best one",
                )
            version = found
        self.info(version)
        return version

    def fetch(self, name: str) -> Path:
        """Return a local folder with a version's verified files; they must not be changed.

        Raises
        ------
        RegistryError
            There is no such version, it is damaged, or the registry cannot be reached.
        """
        version = self.resolve(name)
        folder = self._open(version)
        sums = verify(folder, self.place(version))
        current = self.champion.read()
        if current and current.version == version and current.content_id != sums.content_id:
            raise RegistryError(
                f"{version} is not the version that was promoted: another one has its number",
                where=self.place(version),
                fix="go back to a good version with `lesionflow rollback`",
            )
        return folder

    def _open(self, version: str) -> Path:
        return self.store.open_version(version, self.cache)

    def pull(self, name: str, folder: Path) -> str:
        """Copy a version's verified files into the new folder `folder`; return its name.

        Raises
        ------
        RegistryError
            As `fetch`; or `folder` holds something already.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RegistryError(
                "there is something already", where=str(folder), fix="name a new folder"
            )
        version = self.resolve(name)
        shutil.copytree(self.fetch(version), folder, dirs_exist_ok=True)
        verify(folder, str(folder))
        return version

    # --- writing -----------------------------------------------------------------------------
    def publish(self, files: Mapping[str, Content], content_id: str) -> str:
        """Make `files` a new version and return its name.

        A version with this content that is there already is returned instead. The champion stays.

        Raises
        ------
        RegistryError
            The registry cannot be reached.
        """
        sums = checksums_of(files, content_id=content_id, created_at=now())
        current = self.champion.read()
        # A version that was champion keeps its number for ever, even where its files are gone.
        known = [*current.line, current.version, *current.rolled_back] if current else []
        return self.store.add_version(
            {**files, MARKER: sums.to_bytes()},
            above=max([version_number(name) for name in known], default=0),
            existing=lambda: self.find(content_id),
        )

    def find(self, content_id: str) -> str | None:
        """Return the version with this content, or None; one that is being removed is none."""
        champion = self.champion.read()
        removing = champion.removing if champion else ()
        for version in self.versions():
            if version.content_id == content_id and version.name not in removing:
                return version.name
        return None

    def promote(
        self, version: str, expected_champion: str | None, record: dict[str, Any]
    ) -> Champion:
        """Make `version` champion if `expected_champion` (None: nobody) still is.

        Parameters
        ----------
        record
            The decision, kept in the history.

        Raises
        ------
        PromotionConflictError
            Somebody else is champion by now; nothing was changed.
        RegistryError
            There is no such version, or it is being removed; nothing was changed.
        """

        def content_id_of(name: str) -> str:
            return self.info(name).content_id

        return self.champion.promote(version, content_id_of, expected_champion, record)

    def rollback(self) -> tuple[str, str]:
        """Make the previous champion champion again; return the old one and the new one.

        Called again it goes back one more. The version that was rolled back is promoted again
        only by name.

        Raises
        ------
        RegistryError
            There is no champion, none before it, or the one before it is damaged.
        """
        seen = self.champion.read()
        there = set(self.store.versions())
        line = [name for name in (seen.line if seen else ()) if name in there]
        if seen is None or not line:
            raise RegistryError(
                "there is no earlier champion to go back to",
                where=self.store.uri,
                fix="`lesionflow models` lists the versions; `lesionflow promote VERSION` promotes "
                "one of them",
            )
        target = line[-1]
        content_id = verify(self._open(target), self.place(target)).content_id
        self.champion.roll_back(seen, target, content_id)
        return seen.version, target

    # --- care --------------------------------------------------------------------------------
    def check(self, repair: bool = False) -> list[dict[str, Any]]:
        """Verify every version and alias; see `components.registry.check.check`."""
        return checks.check(self, repair=repair)

    def prune(self, keep: int) -> list[str]:
        """Remove old versions; see `components.registry.check.prune`."""
        return checks.prune(self, keep, self._pinned)

    def place(self, version: str) -> str:
        """Return where a version lies, for messages."""
        return f"{self.store.uri}/{VERSIONS}/{version}"

    def _unknown(self, version: str) -> RegistryError:
        names = self.store.versions()
        listed = ", ".join(names[-10:]) if names else "none yet"
        return RegistryError(
            f"there is no version {version!r}",
            where=self.store.uri,
            fix=f"the versions are: {listed}; the aliases champion, challenger and previous too",
        )


def _info(version: str, sums: Checksums) -> VersionInfo:
    return VersionInfo(version, sums.content_id, sums.created_at, tuple(sums.files))


def open_registry(params: RegistryParams, layout: Layout) -> Registry:
    """Open the registry that `params.yaml` names; it comes into being with its first version."""
    store = open_store(f"{params.uri.rstrip('/')}/{params.model_name}", layout.root)
    return Registry(store, params.model_name, layout.cache, params.pinned)


def version_rows(registry: Registry) -> list[dict[str, Any]]:
    """Return one row per version for a table, newest first.

    `gates` is how it stood when it was registered; a challenger has one that is undecided.
    """
    from components.registry.decision import gates_text

    aliases = registry.aliases()
    rows = []
    for info in reversed(registry.versions()):
        decided = "decision.json" in info.files
        model = registry.document(info.name, "model.json")
        metrics = registry.document(info.name, "metrics.json")
        rows.append(
            {
                "version": info.name,
                "alias": ", ".join(name for name in ALIASES if aliases.get(name) == info.name),
                "model": " + ".join(member["backbone"] for member in model["members"]),
                "balanced_accuracy": metrics.get("balanced_accuracy"),
                "test_images": metrics.get("num_images"),
                "gates": (
                    gates_text(registry.document(info.name, "decision.json")) if decided else None
                ),
                "created_at": info.created_at,
            }
        )
    return rows
