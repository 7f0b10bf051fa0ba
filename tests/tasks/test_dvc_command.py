"""Whenever DVC is ended while it writes `dvc.lock`, the whole last one is there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tasks.dvc_command import dvc_command
from tasks.graph import read_graph

GRAPH = """
stages:
  first:
    cmd: cp data.txt first.txt
    deps: [data.txt]
    outs: [first.txt]
  second:
    cmd: cp first.txt second.txt
    deps: [first.txt]
    outs: [second.txt]
"""
# DVC itself, ended (or out of disk) when so many characters of dvc.lock, or of the list of past
# runs, are written; once for each count. Prints how each of them ended, and what dvc.lock then is.
CUT = """
import errno, io, json, os, signal, sys
from pathlib import Path
from dvc.utils.serialize import _yaml
from tasks.dvc_command import main

what, how, *counts = sys.argv[1].split()
del sys.argv[1]
dump = _yaml._dump

def dump_a_part(data, stream, count):
    if ("schema" in data) != (what == "lock"):
        return dump(data, stream)
    whole = io.StringIO()
    dump(data, whole)
    assert count < len(whole.getvalue())
    stream.write(whole.getvalue()[:count])
    stream.flush()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

for count in map(int, counts):
    child = os.fork()
    if child == 0:
        _yaml._dump = lambda data, stream: dump_a_part(data, stream, count)
        main()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([count, status, Path("dvc.lock").read_text()]))
"""
REPRO = ("--wait-for-lock", "repro", "-q", "--single-item", "second")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project that has run; its second stage is out of date now."""
    (tmp_path / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    (tmp_path / "data.txt").write_text("1", encoding="utf-8")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], dvc_command("repro", "-q")):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert not read_graph(tmp_path).stale
    (tmp_path / "dvc.yaml").write_text(GRAPH.replace("cp first", "cp -p first"), encoding="utf-8")
    return tmp_path


def _cut(project: Path, what: str, how: str, counts: Iterable[int]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", CUT, " ".join([what, how, *map(str, counts)]), *REPRO],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    if how == "full":
        assert "No space left on device" in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Nothing, a part of the first line, of a stage's name, a hash, a size: some are valid YAML.
LOCK = (0, 7, 14, *range(22, 500, 110))
PAST_RUN = (0, 10, *range(20, 200, 60))


@pytest.mark.parametrize("how", ["killed", "full"])
@pytest.mark.parametrize("what, counts", [("lock", LOCK), ("past-run", PAST_RUN)])
def test_a_cut_at_any_place_leaves_the_last_record_whole(
    project: Path, what: str, counts: tuple[int, ...], how: str
) -> None:
    before = (project / "dvc.lock").read_text(encoding="utf-8")
    code = -9 if how == "killed" else 255
    assert _cut(project, what, how, counts) == [[count, code, before] for count in counts]
    assert read_graph(project).stale == {"second"}
    done = subprocess.run(dvc_command(*REPRO), cwd=project, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert read_graph(project).stale == set()
    assert "cp -p first" in (project / "dvc.lock").read_text(encoding="utf-8")
    assert not list(project.rglob("*.half-done"))
