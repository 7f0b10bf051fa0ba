"""Telling somebody who is not looking: failed and crashed runs, a new champion, a question.

Where to is never in a file: `LESIONFLOW_WEBHOOK_URL` (a webhook that takes `{"text": …}`, as those
of Slack, Mattermost and Rocket.Chat do), or `LESIONFLOW_NOTIFICATION_BLOCK`, a Prefect block that
was saved on the server, such as `slack-webhook/team`. Neither is set: nobody is told. A message
that cannot be delivered is an error in the run's log and changes nothing else. The address is a
secret and is never logged.
"""

from __future__ import annotations

import inspect
import json
import os
import urllib.request
from http.client import HTTPException
from typing import Any

from prefect import Flow
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.urls import url_for

from tasks.journal import note_in_run

WEBHOOK = "LESIONFLOW_WEBHOOK_URL"
BLOCK = "LESIONFLOW_NOTIFICATION_BLOCK"
TIMEOUT_SECONDS = 10.0
SKIPPED = "Skipped"
"""Name of the state of a run that found another one at work: nothing went wrong."""
LONGEST = 1500
"""Characters of a message; the run's page, which is linked, has the rest."""


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell that a run failed or crashed, and why (a hook for both)."""
    how = "crashed" if state.is_crashed() else "failed"
    tell(flow_run, f"{_name(flow, flow_run)} {how}: {(state.message or 'no message')[:LONGEST]}")


def tell_champion(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell that a run made a new champion (a hook for completed `retrain` and `promote`)."""
    if state.name == SKIPPED:
        return
    decision = state.result()["decision"]
    if decision["changed"]:
        tell(flow_run, f"{_name(flow, flow_run)}: {decision['model_name']}: {decision['reason']}")


def tell(run: FlowRun, text: str) -> None:
    """Send `text`, with a link to the run's page, wherever the environment says."""
    page = url_for("flow-run", obj_id=run.id)
    message = f"{text}\n{page}" if page else text
    logger = flow_run_logger(run)
    if os.environ.get(WEBHOOK):
        try:
            _post(os.environ[WEBHOOK], message)
        except (OSError, ValueError, HTTPException) as error:
            # The error's own text may hold the address.
            code = getattr(error, "code", "")
            logger.error("%s took no message: %s %s", WEBHOOK, type(error).__name__, code)
            note_in_run(run, "notification_failed", by=WEBHOOK)
        else:
            note_in_run(run, "notification_sent", by=WEBHOOK)
    if os.environ.get(BLOCK):
        try:
            _notify(os.environ[BLOCK], message)
        except Exception as error:  # blocks are other people's code, and raise what they like
            logger.error("%s took no message: %s", BLOCK, type(error).__name__)
            note_in_run(run, "notification_failed", by=BLOCK)
        else:
            note_in_run(run, "notification_sent", by=BLOCK)


def _name(flow: Flow[..., Any], flow_run: FlowRun) -> str:
    # Ours begin with the flow's name; one that was made up before the run could be named does not.
    name = flow_run.name
    return name if name.startswith(flow.name) else f"{flow.name} {name}"


def _post(url: str, message: str) -> None:
    request = urllib.request.Request(
        url,
        data=json.dumps({"text": message}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
        pass


def _notify(name: str, message: str) -> None:
    block = Block.load(name)
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"{name} is no block that notifies")
    with block.raise_on_failure():
        sent = block.notify(message, "Lesionflow")
        if inspect.isawaitable(sent):  # some blocks only know how to be awaited
            run_coro_as_sync(sent)
