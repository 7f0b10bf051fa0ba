"""Several processes promote at once, and some of them are killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from components.registry.s3 import S3Store
from components.registry.store import FolderStore, Store, open_store
from components.registry.versions import Registry

PROMOTER, WORKER = (Path(__file__).with_name(name) for name in ("promoter.py", "worker.py"))
NUM_PROCESSES, PER_PROCESS = 4, 5
Files = Callable[[str], dict[str, bytes]]


def test_of_promotions_at_once_each_wins_or_is_told(uri: str, tmp_path: Path) -> None:
    words = [[f"word-{p}-{n}" for n in range(PER_PROCESS)] for p in range(NUM_PROCESSES)]
    start = tmp_path / "start"
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROMOTER), uri, str(start), *own],
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in words
    ]
    while len(list(tmp_path.glob("start.*"))) < NUM_PROCESSES:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    start.touch()
    outcome: dict[str, list[str]] = {}
    for process in processes:
        outcome |= json.loads(process.communicate(timeout=120)[0])
        assert process.returncode == 0

    registry = Registry(open_store(uri, tmp_path), "tiny", tmp_path / "cache")
    assert len(outcome) == NUM_PROCESSES * PER_PROCESS
    versions = {info.name: info.content_id for info in registry.versions()}
    assert versions == {version: word for word, (version, _) in outcome.items()}
    history = registry.champion.history()
    assert [event.sequence for event in history] == list(range(1, len(history) + 1))
    assert [event.old for event in history] == [None, *(event.new for event in history[:-1])]
    won = [version for version, told in outcome.values() if told == "promoted"]
    assert sorted(event.new for event in history) == sorted(won)
    assert registry.alias("champion") == history[-1].new
    told = [said for _, said in outcome.values() if said != "promoted"]
    assert all(re.search(r"v\d+ was not made champion: .* champion is v\d+", s) for s in told)
    assert registry.check() == []


def _at_once(uri: str, tmp_path: Path, *roles: tuple[str, ...]) -> list[Any]:
    """Run one process per role (see `worker.py`), all started at once; return what they print.

    Those that prune go on until all others have ended.
    """
    start, done = tmp_path / "start", tmp_path / "done"
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), uri, str(tmp_path), str(number), *role],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, role in enumerate(roles)
    ]
    try:
        while len(list(tmp_path.glob("ready.*"))) < len(roles):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.02)
        start.touch()
        said: dict[int, Any] = {}
        for number in sorted(range(len(roles)), key=lambda number: roles[number][0] == "prune"):
            if roles[number][0] == "prune":
                done.touch()
            said[number] = json.loads(processes[number].communicate(timeout=120)[0])
            assert processes[number].returncode == 0
    finally:
        for process in processes:
            process.kill()
    return [said[number] for number in range(len(roles))]


def test_of_promotions_and_prunes_at_once_no_champion_is_removed(
    uri: str, tmp_path: Path, files_of: Files
) -> None:
    registry = Registry(open_store(uri, tmp_path), "tiny", tmp_path / "cache")
    words = [f"word {number}" for number in range(20)]
    names = [registry.publish(files_of(word), content_id=word) for word in words]
    registry.promote(names[-1], None, {})
    newest_first = names[-2::-1]  # the prunes begin with the oldest: they meet on the way
    roles = [("promote", *newest_first[0::2]), ("promote", *newest_first[1::2])]
    *outcomes, first, second = _at_once(uri, tmp_path, *roles, ("prune",), ("prune",))
    outcome = outcomes[0] | outcomes[1]
    won = {version for version, told in outcome.items() if told == "promoted"}
    removed = {*first, *second}
    assert won and removed and not won & removed
    told = [said for said in outcome.values() if said != "promoted"]
    expected = r"no version 'v\d+'|v\d+ is being removed|v\d+ was not made champion"
    assert all(re.search(expected, said) for said in told)

    champion, history = registry.champion.read(), registry.champion.history()
    assert champion is not None
    assert champion.removing == ()
    assert {event.new for event in history} == {names[-1], *won}
    assert [*champion.line, champion.version] == [event.new for event in history]
    assert {info.name for info in registry.versions()} == {*names} - removed
    assert registry.check() == []
    for _ in won:
        registry.rollback()
    assert registry.fetch("champion") == registry.fetch(names[-1])


def test_processes_that_share_a_cache_mend_and_fetch_the_same_versions(
    s3_bucket: str, tmp_path: Path, files_of: Files
) -> None:
    uri = f"s3://{s3_bucket}/registry"
    registry = Registry(S3Store(uri), "tiny", tmp_path / "cache")
    words = [f"word {number}" for number in range(8)]
    names = [registry.publish(files_of(word), content_id=word) for word in words]
    for name in names[::2]:
        (registry.fetch(name) / "model.json").write_text("spoilt")
    for said in _at_once(uri, tmp_path, *[("fetch", *names)] * 4):
        assert said == [f'"{word}"' for word in words]


def test_the_same_content_published_at_once_is_one_version(tmp_path: Path) -> None:
    """In a folder for certain; on S3 two processes at the very same moment may make two."""
    start = tmp_path / "start"
    command = [sys.executable, str(PROMOTER), str(tmp_path / "registry"), str(start), "word"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    start.touch()
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    registry = Registry(FolderStore(tmp_path / "registry"), "tiny", tmp_path / "cache")
    assert [info.name for info in registry.versions()] == ["v0001"]
    assert registry.check() == []


def _promote(store: Store, files: dict[str, bytes], word: str, cache: Path) -> str:
    registry = Registry(store, "tiny", cache)
    version = registry.publish(files, content_id=word)
    registry.promote(version, registry.alias("champion"), {})
    return version


def _fresh(uri: str) -> Store:
    """Return a store that takes every unfinished version for a leftover at once."""
    return S3Store(uri, timedelta(0)) if uri.startswith("s3://") else FolderStore(Path(uri))


def _steps(uri: str) -> Callable[[str, tuple[Any, ...]], bool]:
    """Return what recognises a step of a promotion: an operation on files, or a request."""
    if uri.startswith("s3://"):
        return lambda event, _: event == "http.client.send"
    kinds = {"open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.rmdir", "os.listdir"}
    return lambda event, args: event in kinds and any(uri in str(arg) for arg in args)


def _in_child(work: Callable[[], object], is_step: Any, kill_at: int) -> int:
    """Run `work` in a child that is killed before its step `kill_at`; return the steps it did.

    Returns -1 where it was killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def count_steps(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if is_step(event, args):
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(count_steps)
        try:
            work()
            os.write(writer, str(count).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert killed != bool(said), "the child failed"
    return -1 if killed else int(said)


def test_a_promotion_killed_anywhere_leaves_the_old_or_the_new_champion(
    uri: str, tmp_path: Path, files_of: Files
) -> None:
    kills = 10 if uri.startswith("s3://") else 40
    cache = tmp_path / "cache"
    _promote(_fresh(uri), files_of("first"), "first", cache)
    words = [f"word {number}" for number in range(kills + 1)]
    num_steps = _in_child(
        lambda: _promote(_fresh(uri), files_of(words[0]), words[0], cache), _steps(uri), -1
    )
    assert num_steps > kills
    outcomes = set()
    for number, word in enumerate(words[1:]):
        registry = Registry(_fresh(uri), "tiny", cache)
        before = registry.champion.read()
        assert before is not None
        kill_at = number * (num_steps - 1) // (kills - 1)
        survived = _in_child(
            lambda word=word: _promote(_fresh(uri), files_of(word), word, cache),
            _steps(uri),
            kill_at,
        )
        assert survived == -1, f"not killed at step {kill_at} of {num_steps}"
        after = registry.champion.read()
        assert after is not None
        assert after.content_id in (before.content_id, word)
        outcomes.add(after.content_id == word)
        registry.fetch("champion")
        for info in registry.versions():
            registry.fetch(info.name)
        assert {finding["kind"] for finding in registry.check()} <= {"leftover", "unfinished move"}
        registry.check(repair=True)
        assert registry.check() == []
        history = registry.champion.history()
        assert [event.sequence for event in history] == list(range(1, len(history) + 1))
        assert [event.old for event in history] == [None, *(event.new for event in history[:-1])]
        assert history[-1] == after.event
        needed = registry.aliases().values()
        for info in registry.versions()[:-1]:  # so that every promotion has about as many steps
            if info.name not in needed:
                registry.store.remove_version(info.name)
    assert outcomes == {True, False}, "the kills did not lie on both sides of the move"
    last = _promote(_fresh(uri), files_of("last"), "last", cache)
    assert registry.fetch(last).name is not None
    assert registry.alias("champion") == last
    assert registry.check() == []


def test_a_prune_killed_anywhere_is_ended_by_a_repair(
    uri: str, tmp_path: Path, files_of: Files
) -> None:
    kills, cache = 10, tmp_path / "cache"
    registry = Registry(_fresh(uri), "tiny", cache)
    _promote(_fresh(uri), files_of("first"), "first", cache)

    def prune() -> None:
        Registry(_fresh(uri), "tiny", cache).prune(1)

    def publish(word: str) -> None:
        for content in (word, f"{word} again"):
            registry.publish(files_of(content), content_id=content)

    publish("old")
    num_steps = _in_child(prune, _steps(uri), -1)
    found = set()
    for number in range(kills):
        publish(f"word {number}")
        assert _in_child(prune, _steps(uri), number * (num_steps - 1) // (kills - 1)) == -1
        assert registry.fetch("champion") == registry.fetch("v0001")
        found |= {finding["kind"] for finding in registry.check()}
        registry.check(repair=True)
        assert registry.check() == []
        registry.prune(1)
        assert len(registry.versions()) == 2
    assert found == {"leftover", "unfinished removal"}


def test_a_publication_under_way_is_no_leftover(tmp_path: Path) -> None:
    """A repair in another process removes nothing of it; once its writer is dead, it does."""
    store = FolderStore(tmp_path / "registry")
    registry = Registry(store, "tiny", tmp_path / "cache")
    with store._staging() as folder:
        (folder / "model.json").write_bytes(b"half")
        _in_child(lambda: registry.check(repair=True), lambda *_: False, -1)
        assert (folder / "model.json").is_file()
        assert registry.check() == []
    folder.mkdir()
    assert [finding["kind"] for finding in registry.check(repair=True)] == ["leftover"]
    assert not folder.exists()
