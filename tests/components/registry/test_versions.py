"""Versions and aliases, in a folder and on S3 alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import RegistryError
from components.registry.aliases import PromotionConflictError, history_key
from components.registry.versions import Registry

Files = Callable[[str], dict[str, bytes]]


def _champions(registry: Registry, files_of: Files, *words: str) -> list[str]:
    """Publish and promote one version per word."""
    names = []
    for word in words:
        names.append(registry.publish(files_of(word), content_id=word))
        registry.promote(names[-1], registry.alias("champion"), {"why": word})
    return names


def test_an_empty_registry_has_nothing_and_says_so(registry: Registry) -> None:
    assert registry.versions() == []
    assert registry.aliases() == {}
    assert registry.check() == []
    with pytest.raises(RegistryError, match="no champion yet"):
        registry.fetch("champion")


def test_versions_are_numbered_and_hold_what_was_published(
    registry: Registry, files_of: Files
) -> None:
    assert registry.publish(files_of("one"), content_id="a") == "v0001"
    assert registry.publish(files_of("two"), content_id="b") == "v0002"
    folder = registry.fetch("v0002")
    assert (folder / "model.json").read_text() == '"two"'
    assert (folder / "predictions" / "test.parquet").read_bytes() == b"rows"
    assert [info.name for info in registry.versions()] == ["v0001", "v0002"]


def test_the_same_content_is_the_same_version(registry: Registry, files_of: Files) -> None:
    first = registry.publish(files_of("one"), content_id="a")
    assert registry.publish(files_of("one, with another date"), content_id="a") == first
    assert len(registry.versions()) == 1
    assert registry.check() == []


def test_a_promotion_moves_champion_and_previous_and_is_recorded(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two")
    assert registry.aliases() == {"champion": "v0002", "previous": "v0001"}
    assert [(event.old, event.new) for event in registry.champion.history()] == [
        (None, "v0001"),
        ("v0001", "v0002"),
    ]
    assert registry.champion.history()[1].record == {"why": "two"}
    previous = registry.store.read("aliases/previous.json")
    assert previous is not None
    assert json.loads(previous.data)["version"] == "v0001"


def test_the_champion_promoted_again_changes_nothing(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one")
    before = registry.champion.read()
    registry.promote("v0001", "v0001", {})
    assert registry.champion.read() == before


def test_who_expected_another_champion_is_told_both_names(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two")
    late = registry.publish(files_of("late"), content_id="late")
    with pytest.raises(PromotionConflictError, match=r"against v0001.*champion is v0002"):
        registry.promote(late, "v0001", {})
    assert registry.alias("champion") == "v0002"
    assert len(registry.champion.history()) == 2


def test_a_version_that_is_not_there_cannot_be_promoted(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no version 'v0007'"):
        registry.promote("v0007", None, {})


def test_rollback_walks_back_along_the_line_of_champions(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two", "three")
    assert registry.rollback() == ("v0003", "v0002")
    assert registry.aliases() == {"champion": "v0002", "previous": "v0001"}
    assert registry.rollback() == ("v0002", "v0001")
    with pytest.raises(RegistryError, match="no earlier champion"):
        registry.rollback()
    assert registry.alias("champion") == "v0001"
    assert [event.kind for event in registry.champion.history()] == ["promotion"] * 3 + [
        "rollback"
    ] * 2


def test_what_was_rolled_back_is_remembered_until_it_is_promoted_again(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two")
    registry.rollback()
    champion = registry.champion.read()
    assert champion is not None
    assert champion.rolled_back == ("v0002",)
    champion = registry.promote("v0002", "v0001", {})
    assert champion.rolled_back == ()
    assert registry.rollback() == ("v0002", "v0001")


def test_rollback_leaves_out_a_version_that_was_pruned(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one", "two", "three")
    registry.store.remove_version("v0002")
    assert registry.rollback() == ("v0003", "v0001")


def test_the_challenger_is_a_pointer_of_its_own(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one")
    name = registry.publish(files_of("two"), content_id="two")
    registry.champion.set_challenger(name)
    assert registry.resolve("challenger") == "v0002"
    registry.promote(name, "v0001", {})
    assert registry.alias("challenger") is None


def test_a_crash_after_the_move_loses_nothing(registry: Registry, files_of: Files) -> None:
    """What follows from the champion's file is missing: the next move or a repair writes it."""
    _champions(registry, files_of, "one", "two")
    _forget(registry, history_key(2))
    found = registry.check()
    assert [finding["kind"] for finding in found] == ["unfinished move"]
    assert not found[0]["repaired"]
    assert registry.check(repair=True)[0]["repaired"]
    assert registry.check() == []
    _forget(registry, history_key(2))
    _champions(registry, files_of, "three")
    assert [event.new for event in registry.champion.history()] == ["v0001", "v0002", "v0003"]


def test_prune_keeps_the_newest_the_aliases_and_the_pinned(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two")
    for word in ("three", "four", "five", "six"):
        registry.publish(files_of(word), content_id=word)
    registry.champion.set_challenger("v0003")
    pinned = Registry(registry.store, "tiny", registry.cache.parent, pinned=("v0004",))
    assert pinned.prune(1) == ["v0005"]
    assert [info.name for info in registry.versions()] == [
        "v0001",
        "v0002",
        "v0003",
        "v0004",
        "v0006",
    ]
    assert registry.check() == []


def test_a_number_is_never_given_twice(registry: Registry, files_of: Files) -> None:
    """Else an alias would name another model than the one that was promoted."""
    _champions(registry, files_of, "one", "two")
    registry.rollback()
    registry.store.remove_version("v0002")
    assert registry.publish(files_of("three"), content_id="three") == "v0003"


def test_a_damaged_file_is_named_and_not_used(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one")
    found = registry.store.read("versions/v0001/model.json")
    assert found is not None
    _overwrite(registry, "versions/v0001/model.json", b'"eno"')
    with pytest.raises(RegistryError, match=r"model\.json has other bytes"):
        registry.fetch("champion")
    assert [(f["kind"], f["name"]) for f in registry.check()] == [("damaged version", "v0001")]
    with pytest.raises(RegistryError, match=r"model\.json"):
        registry.pull("v0001", registry.cache.parent / "out")


def test_rollback_does_not_go_to_a_damaged_version(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one", "two")
    _overwrite(registry, "versions/v0001/model.json", b'"eno"')
    with pytest.raises(RegistryError, match=r"model\.json has other bytes"):
        registry.rollback()
    assert registry.alias("champion") == "v0002"


def test_a_missing_file_is_named(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one")
    _forget(registry, "versions/v0001/predictions/test.parquet")
    with pytest.raises(RegistryError, match=r"test\.parquet is missing"):
        registry.fetch("v0001")


def test_a_champion_that_is_gone_is_found(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one", "two")
    registry.store.remove_version("v0002")
    with pytest.raises(RegistryError, match="no version 'v0002'"):
        registry.fetch("champion")
    assert [finding["kind"] for finding in registry.check()] == ["broken alias"]
    assert registry.rollback() == ("v0002", "v0001")
    assert registry.check() == []


def test_a_champion_whose_number_was_given_to_another_model_is_found(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one")
    registry.store.remove_version("v0001")
    registry.store.add_version(
        {**files_of("two"), "checksums.json": _marker(files_of("two"))}, 0, lambda: None
    )
    with pytest.raises(RegistryError, match="not the version that was promoted"):
        registry.fetch("champion")
    assert "broken alias" in [finding["kind"] for finding in registry.check()]


def test_a_damaged_alias_is_named(registry: Registry, files_of: Files) -> None:
    _champions(registry, files_of, "one")
    _overwrite(registry, "aliases/champion.json", b"{")
    with pytest.raises(RegistryError, match="champion's file is damaged"):
        registry.alias("champion")
    assert "broken alias" in [finding["kind"] for finding in registry.check()]


def test_without_the_champions_file_the_history_goes_on(
    registry: Registry, files_of: Files
) -> None:
    _champions(registry, files_of, "one", "two")
    _forget(registry, "aliases/champion.json")
    _champions(registry, files_of, "three")
    assert [event.new for event in registry.champion.history()] == ["v0001", "v0002", "v0003"]


def test_pull_copies_a_verified_version(
    registry: Registry, files_of: Files, tmp_path: Path
) -> None:
    _champions(registry, files_of, "one")
    target = tmp_path / "out"
    assert registry.pull("champion", target) == "v0001"
    assert (target / "model.json").read_text() == '"one"'
    with pytest.raises(RegistryError, match="something already"):
        registry.pull("champion", target)


def test_how_often_a_test_set_was_used_is_counted_once_per_candidate(registry: Registry) -> None:
    for candidate in ("a", "b", "b"):
        registry.looks.add("test set", {"candidate": candidate, "passed": False})
    assert registry.looks.count("test set") == 2
    assert registry.looks.count("test set", without="b") == 1
    assert registry.looks.count("another one") == 0


def _marker(files: dict[str, bytes]) -> bytes:
    from components.registry.checksums import checksums_of

    return checksums_of(files, content_id="two", created_at="2020-01-01T00:00:00+00:00").to_bytes()


def _overwrite(registry: Registry, key: str, data: bytes) -> None:
    found = registry.store.read(key)
    assert found is not None
    assert registry.store.write(key, data, expected=found.tag)


def _forget(registry: Registry, key: str) -> None:
    """Remove a file behind the registry's back."""
    if registry.store.uri.startswith("s3://"):
        import boto3

        bucket, _, prefix = registry.store.uri.removeprefix("s3://").partition("/")
        client = boto3.session.Session().client("s3")
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")
    else:
        (Path(registry.store.uri) / key).unlink()
