"""Two runs at once in one workspace: the second says so; a killed run leaves no lock."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import ResourceError
from components.layout import Layout
from flows.workspace import exclusive

HOLD = """
import sys, time
from pathlib import Path
from components.layout import Layout
from flows.workspace import exclusive
with exclusive(Layout(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_run_is_told_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match="another run"), exclusive(Layout(tmp_path)):
            pass
        first.send_signal(signal.SIGKILL)
    with exclusive(Layout(tmp_path)):
        pass


@pytest.mark.parametrize(
    "command",
    [["retrain", "-S", "training.epochs=1"], ["use", "melanoma-folders", "--source", "."]],
    ids=["retrain", "use"],
)
def test_who_is_refused_has_changed_nothing(
    workspace: Path, lesionflow: Callable[..., Any], command: list[str]
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    with exclusive(Layout(workspace)):
        refused = lesionflow(workspace, *command)
    assert refused.returncode == 2, refused.stderr
    assert "another run is at work in this workspace" in refused.stderr
    assert (workspace / "params.yaml").read_bytes() == before
