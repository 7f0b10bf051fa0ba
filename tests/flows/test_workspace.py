"""Two runs at once in one workspace: the second says so; a killed run leaves no lock."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

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
