"""A stage sees only what `dvc.yaml` declares for it, and its error survives the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import CheckFailedError
from components.params import load_params
from components.stage import declared_only, read_stage_error

REPO = Path(__file__).resolve().parents[2]


def test_an_undeclared_section_cannot_be_read() -> None:
    params = declared_only(load_params(REPO / "params.yaml"), "pack", REPO / "dvc.yaml")
    assert params.pack.image_size > 0
    with pytest.raises(AttributeError):
        _ = params.split


def _run(workspace: Path, body: str) -> subprocess.CompletedProcess[str]:
    program = (
        "from components.stage import run_stage\n"
        "from components.errors import *\n"
        f"def work(params, layout):\n    {body}\n"
        "run_stage('pack', work)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=workspace, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("body", "code", "kind"),
    [
        ("raise CheckFailedError('a', where='b', fix='c')", 1, "CheckFailedError"),
        ("raise SourceError('a', where='b', fix='c')", 2, "SourceError"),
        ("raise OSError(28, 'No space left on device')", 2, "ResourceError"),
        ("1 / 0", 70, "ZeroDivisionError"),
    ],
)
def test_a_failing_stage_leaves_its_message_and_code(
    workspace: Path, body: str, code: int, kind: str
) -> None:
    done = _run(workspace, body)
    left = read_stage_error(workspace / ".lesionflow" / "errors" / "pack.json")
    assert done.returncode == code
    assert left is not None
    assert (left["type"], left["exit_code"]) == (kind, code)


def test_the_first_line_of_a_bug_says_what_it_is(workspace: Path) -> None:
    _run(workspace, "1 / 0")
    left = read_stage_error(workspace / ".lesionflow" / "errors" / "pack.json")
    assert left is not None
    assert left["message"].splitlines()[0] == "ZeroDivisionError: division by zero"
    assert "Traceback" in left["message"]


def test_the_users_mistake_shows_no_traceback(workspace: Path) -> None:
    done = _run(workspace, "raise SourceError('no such folder', where='x', fix='y')")
    assert "no such folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_that_works_clears_an_old_error(workspace: Path) -> None:
    _run(workspace, "raise SourceError('a', where='b', fix='c')")
    assert _run(workspace, "pass").returncode == 0
    assert read_stage_error(workspace / ".lesionflow" / "errors" / "pack.json") is None


def test_an_error_survives_pickling() -> None:
    import pickle

    error = CheckFailedError("a", where="b", fix="c")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
