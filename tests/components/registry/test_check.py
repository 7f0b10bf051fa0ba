"""Removing old versions: what is kept, and that nobody is promoted to what is being removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import RegistryError
from components.registry.store import open_store
from components.registry.versions import Registry

Files = Callable[[str], dict[str, bytes]]


@pytest.fixture
def filled(registry: Registry, files_of: Files) -> Registry:
    """Return a registry of four versions, of which the first is champion."""
    for word in ("one", "two", "three", "four"):
        registry.publish(files_of(word), content_id=word)
    registry.promote("v0001", None, {})
    registry.champion.set_challenger("v0003")
    return registry


@pytest.fixture
def other(filled: Registry, tmp_path: Path) -> Registry:
    """Return the same registry as somebody else sees it."""
    return Registry(open_store(filled.store.uri, tmp_path), "tiny", tmp_path / "other cache")


def _before_removal(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, work: Callable[[str], Any]
) -> None:
    """Do `work` when `registry` is about to remove a version, after its last look."""
    remove = registry.store.remove_version

    def remove_after_work(name: str) -> None:
        work(name)
        remove(name)

    monkeypatch.setattr(registry.store, "remove_version", remove_after_work)


def _around_move(
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[], Any] = lambda: None,
    after: Callable[[], Any] = lambda: None,
) -> None:
    """Do something before and after the first time that `registry` writes the champion's file."""
    write, done = registry.store.write, []

    def write_between(key: str, data: bytes, *, expected: str | None) -> bool:
        if key != "aliases/champion.json" or done:
            return write(key, data, expected=expected)
        done.append(key)
        before()
        written = write(key, data, expected=expected)
        after()
        return written

    monkeypatch.setattr(registry.store, "write", write_between)


def _names(registry: Registry) -> list[str]:
    return [info.name for info in registry.versions()]


def test_prune_keeps_former_champions_so_that_a_second_rollback_works(filled: Registry) -> None:
    filled.promote("v0002", "v0001", {})
    filled.promote("v0003", "v0002", {})
    assert filled.prune(1) == []
    assert filled.rollback() == ("v0003", "v0002")
    assert filled.rollback() == ("v0002", "v0001")
    filled.champion.set_challenger("v0004")
    assert filled.prune(1) == ["v0002", "v0003"], "no rollback leads to them any more"


def test_what_is_about_to_be_removed_is_not_promoted(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promote(name: str) -> None:
        with pytest.raises(RegistryError, match=f"{name} is being removed"):
            other.promote(name, "v0001", {})

    _before_removal(filled, monkeypatch, promote)
    assert filled.prune(1) == ["v0002"]
    assert other.alias("champion") == "v0001"
    assert other.check() == []


def test_what_was_removed_since_the_promotion_looked_is_not_promoted(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion's file says the same as before the prune, but is not taken for it."""
    _around_move(filled, monkeypatch, before=lambda: other.prune(1))
    with pytest.raises(RegistryError, match="no version 'v0002'"):
        filled.promote("v0002", "v0001", {})
    assert other.alias("champion") == "v0001"
    assert other.check() == []


def test_what_was_promoted_since_the_prune_looked_is_kept(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _around_move(filled, monkeypatch, before=lambda: other.promote("v0002", "v0001", {}))
    assert filled.prune(1) == []
    assert other.fetch("champion").name is not None
    assert other.alias("champion") == "v0002"
    assert other.check() == []


def test_a_prune_does_not_stop_a_promotion_of_another_version(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _around_move(filled, monkeypatch, before=lambda: other.prune(1))
    filled.promote("v0003", "v0001", {})
    assert other.aliases() == {"champion": "v0003", "previous": "v0001"}
    assert _names(other) == ["v0001", "v0003", "v0004"]


def test_a_promotion_whose_answer_was_lost_while_a_prune_wrote_is_no_conflict(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = filled.store.write

    def write_and_lose_the_answer(key: str, data: bytes, *, expected: str | None) -> bool:
        if key != "aliases/champion.json":
            return write(key, data, expected=expected)
        assert write(key, data, expected=expected)
        assert other.prune(1) == ["v0002"]
        return write(key, data, expected=expected)  # sent again

    monkeypatch.setattr(filled.store, "write", write_and_lose_the_answer)
    assert filled.promote("v0003", "v0001", {}).version == "v0003"
    assert [event.new for event in other.champion.history()] == ["v0001", "v0003"]
    assert other.check() == []


def test_a_rollback_goes_on_although_a_prune_came_between(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.promote("v0004", "v0001", {})
    _around_move(filled, monkeypatch, before=lambda: other.prune(1))
    assert filled.rollback() == ("v0004", "v0001")
    assert _names(other) == ["v0001", "v0003", "v0004"]
    assert other.check() == []


def test_what_is_about_to_be_removed_does_not_become_challenger(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def challenge(name: str) -> None:
        with pytest.raises(RegistryError, match=f"{name} is being removed"):
            other.champion.set_challenger(name)

    _before_removal(filled, monkeypatch, challenge)
    assert filled.prune(1) == ["v0002"]
    assert other.alias("challenger") == "v0003"
    assert other.check() == []


def test_what_became_challenger_just_before_its_removal_is_kept(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenger was written, and has not looked for removals yet."""
    _around_move(filled, monkeypatch, after=lambda: other.champion._point_challenger("v0002"))
    assert "v0002" not in filled.prune(1)
    assert "v0002" in _names(other)
    assert other.alias("challenger") == "v0002"
    assert other.check() == []


def test_two_prunes_at_once_remove_each_version_in_peace(
    filled: Registry, other: Registry, monkeypatch: pytest.MonkeyPatch, files_of: Files
) -> None:
    filled.publish(files_of("five"), content_id="five")
    _before_removal(filled, monkeypatch, lambda _: other.prune(1))
    assert "v0002" in filled.prune(1)
    assert _names(other) == ["v0001", "v0003", "v0005"]
    assert other.check() == []
    filled.store.remove_version("v0002")  # gone already: nothing to do


def test_an_interrupted_prune_is_found_and_ended(filled: Registry, files_of: Files) -> None:
    assert filled.champion.announce_removal("v0002")  # and then it was killed
    found = filled.check()
    assert [(one["kind"], one["name"]) for one in found] == [("unfinished removal", "v0002")]
    with pytest.raises(RegistryError, match="v0002 is being removed") as raised:
        filled.promote("v0002", "v0001", {})
    assert "registry check --repair" in raised.value.fix
    assert filled.publish(files_of("two"), content_id="two") == "v0005", (
        "the old one counts no more"
    )
    assert [one["repaired"] for one in filled.check(repair=True)] == [True]
    assert _names(filled) == ["v0001", "v0003", "v0004", "v0005"]
    assert filled.check() == []


def test_without_a_champion_nothing_is_removed(registry: Registry, files_of: Files) -> None:
    assert registry.prune(1) == []
    for word in ("one", "two"):
        registry.publish(files_of(word), content_id=word)
    with pytest.raises(RegistryError, match="no champion yet"):
        registry.prune(1)
    assert _names(registry) == ["v0001", "v0002"]
