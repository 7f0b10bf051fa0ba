"""Looking after a registry: what is damaged, what a crash left behind, what is old."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.errors import RegistryError
from components.registry.store import VERSIONS, version_number

if TYPE_CHECKING:
    from components.registry.versions import Registry

Finding = dict[str, Any]


def check(registry: Registry, *, repair: bool) -> list[Finding]:
    """Verify every version and alias, and look for what crashes left behind.

    Parameters
    ----------
    repair
        Remove leftovers that nobody is writing any more, end removals, and complete the history.
        A damaged version or alias is never mended: that is for a person.

    Returns
    -------
    list of dict
        `kind` (damaged version, broken alias, unfinished move, unfinished removal, leftover),
        `name`, `detail`, `repaired`. Nothing is wrong where it is empty.
    """
    return [
        *_versions(registry),
        *_aliases(registry, repair=repair),
        *_removals(registry, repair=repair),
        *_leftovers(registry, repair=repair),
    ]


def _versions(registry: Registry) -> list[Finding]:
    findings = []
    for name in registry.store.versions():
        try:
            problems = list(_problems(registry, name))
        except RegistryError as error:
            problems = [error.what]
        if problems and name not in registry.store.versions():
            continue  # removed while we looked
        findings += [_finding("damaged version", name, problem) for problem in problems]
    return findings


def _problems(registry: Registry, version: str) -> Iterator[str]:
    """Yield what is wrong with the files as they lie in the store (no cache is asked)."""
    for file, expected in registry.checksums(version).files.items():
        found = registry.store.digest(f"{VERSIONS}/{version}/{file}")
        if found is None:
            yield f"{file} is missing"
        elif found != (expected.sha256, expected.size):
            yield f"{file} has other bytes than were published"


def _aliases(registry: Registry, *, repair: bool) -> list[Finding]:
    findings = []
    try:
        champion = registry.champion.read()
        aliases = registry.aliases()
    except RegistryError as error:
        return [_finding("broken alias", "champion", error.what)]
    there = set(registry.store.versions())
    for alias, version in aliases.items():
        if version not in there:
            findings.append(_finding("broken alias", alias, f"names {version}, which is not there"))
    if champion is not None and champion.version in there:
        content_id = registry.checksums(champion.version).content_id
        if content_id != champion.content_id:
            detail = f"{champion.version} is not the version that was promoted"
            findings.append(_finding("broken alias", "champion", detail))
    if champion is not None and not registry.champion.is_settled(champion):
        if repair:
            registry.champion.settle(champion)
        event = champion.event
        detail = f"move {event.sequence} to {event.new} is not in the history yet"
        findings.append(_finding("unfinished move", "champion", detail, repaired=repair))
    return findings


def _removals(registry: Registry, *, repair: bool) -> list[Finding]:
    """Return the removals that were announced; one of a prune at work is among them."""
    try:
        champion = registry.champion.read()
    except RegistryError:
        return []  # said by `_aliases`
    findings = []
    for version in champion.removing if champion else ():
        if repair:
            _remove_announced(registry, version)
        detail = "its removal was announced and has not ended"
        findings.append(_finding("unfinished removal", version, detail, repaired=repair))
    return findings


def _leftovers(registry: Registry, *, repair: bool) -> list[Finding]:
    findings = []
    for leftover in registry.store.leftovers():
        if leftover.in_use:
            continue
        if repair:
            registry.store.remove_leftover(leftover)
        findings.append(_finding("leftover", leftover.name, leftover.detail, repaired=repair))
    return findings


def _finding(kind: str, name: str, detail: str, repaired: bool = False) -> Finding:
    return {"kind": kind, "name": name, "detail": detail, "repaired": repaired}


def prune(registry: Registry, keep: int, pinned: tuple[str, ...]) -> list[str]:
    """Remove old versions.

    Kept are the newest `keep`, the champion, the champions before it that rollbacks lead to, the
    challenger, and the `pinned` ones. Each version is judged anew right before its removal, and
    the removal is announced in the champion's file: nobody promotes the version from then on.

    Returns
    -------
    list of str
        The removed versions; one that another prune removes is not among them.

    Raises
    ------
    RegistryError
        There is something to remove, but no champion: nothing can be announced.
    """
    names = sorted(registry.store.versions(), key=version_number)
    old = [name for name in names[:-keep] if name not in pinned]
    if old and registry.champion.read() is None:
        raise RegistryError(
            "there is no champion yet: nothing is removed",
            where=registry.store.uri,
            fix="promote one of the versions first: `lesionflow promote VERSION`",
        )
    return [
        name
        for name in old
        if registry.champion.announce_removal(name) and _remove_announced(registry, name)
    ]


def _remove_announced(registry: Registry, version: str) -> bool:
    """Remove a version whose removal was announced, unless it became challenger just before."""
    needed = registry.champion.read_challenger() == version
    if not needed:
        registry.store.remove_version(version)
    registry.champion.end_removal(version)
    return not needed
