"""What every stage of `dvc.yaml` shares: its parameters, and the error that survives DVC.

A stage module ends in ``run_stage("split", run)``. DVC turns every exit code of a stage into 255
and loses the message, so a failing stage leaves an error file that the Prefect task and the
command line read. DVC has also removed what the stage wrote last: that is put back.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.atomic import disk_full_as_error, write_json
from components.errors import LesionflowError
from components.last_good import put_back_own
from components.layout import Layout
from components.params import Params, load_params, read_yaml

BUG_EXIT_CODE = 70
FLOW_PID = "LESIONFLOW_FLOW_PID"
"""Environment variable by which a flow tells its stages which process they belong to."""


def run_stage(stage: str, work: Callable[[Params, Layout], None], item: str = "") -> None:
    """Run `work` with the parameters that `dvc.yaml` declares for `stage`; end the process.

    Parameters
    ----------
    stage
        Name in `dvc.yaml`, without a matrix item.
    work
        The stage's work; it raises `LesionflowError` for what the user can mend.
    item
        Matrix item, such as `resnet18-0`.
    """
    name = f"{stage}@{item}" if item else stage
    layout = Layout.find()
    error_file = layout.stage_error(name)
    error_file.unlink(missing_ok=True)
    _end_with_flow()
    try:
        with disk_full_as_error(layout.root):
            params = load_params(layout.params)
            work(declared_only(params, stage, layout.graph), layout)
    except LesionflowError as error:
        _leave(error_file, type(error).__name__, str(error), error.exit_code)
        print(f"{name} failed: {error}", file=sys.stderr, flush=True)
        put_back_own(layout.root, name)
        sys.exit(error.exit_code)
    except Exception as error:
        traceback.print_exc()
        # The first line is what lists of runs and notifications show.
        message = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        _leave(error_file, type(error).__name__, message, BUG_EXIT_CODE)
        put_back_own(layout.root, name)
        sys.exit(BUG_EXIT_CODE)


def _end_with_flow() -> None:
    """End this process when the flow that started it is gone (killed): leave nothing running."""
    flow = os.environ.get(FLOW_PID)
    if flow is None:
        return

    def watch(pid: int) -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(BUG_EXIT_CODE)
            time.sleep(1)

    threading.Thread(target=watch, args=(int(flow),), daemon=True).start()


def declared_only(params: Params, stage: str, graph: Path) -> Params:
    """Return `params` with only the sections that `stage` declares in `dvc.yaml`.

    Reading any other section raises `AttributeError`: a stage cannot depend on a parameter that
    DVC does not watch. Of `backbones` a matrix stage keeps all entries and declares its own one.
    """
    declared = read_yaml(graph)["stages"][stage].get("params", [])
    # An entry that is a mapping names another file than params.yaml.
    sections = {entry.split(".")[0] for entry in declared if isinstance(entry, str)}
    kept = {name: getattr(params, name) for name in Params.model_fields if name in sections}
    return Params.model_construct(**kept)


def _leave(path: Path, kind: str, message: str, code: int) -> None:
    """Write the error file; a full disk must not hide the error itself."""
    try:
        write_json(path, {"type": kind, "message": message, "exit_code": code})
    except (OSError, LesionflowError):
        print(f"(the error file {path} could not be written)", file=sys.stderr)


def read_stage_error(path: Path) -> dict[str, Any] | None:
    """Return what a stage left behind when it failed, or None."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None
