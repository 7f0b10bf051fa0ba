"""Somebody is told of what went wrong and of a new champion; the address stays secret."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from components.errors import SourceError
from tasks.notifications import tell_champion, tell_failure
from tests.receiver import Receiver

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="ingest", flow_run_name="ingest 2026-11-20", on_failure=[tell_failure])
def _fails() -> None:
    raise SourceError("no such folder: /x", where="sources.0", fix="correct the path")


@flow(name="retrain", flow_run_name="retrain 2026-11-20", on_completion=[tell_champion])
def _ends(changed: bool) -> dict[str, Any]:
    reason = "promoted v0002 (champion before: v0001)"
    return {"decision": {"changed": changed, "model_name": "ham10000", "reason": reason}}


def _fail() -> None:
    with pytest.raises(SourceError):
        _fails()


def test_a_failed_run_is_told_with_its_name_and_what_to_do(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)
    _fail()
    (body,) = receiver.bodies
    assert set(body) == {"text"}  # what chat servers take
    assert body["text"].startswith("ingest 2026-11-20 failed: ")
    assert "no such folder: /x" in body["text"]
    assert "correct the path" in body["text"]
    assert "/runs/flow-run/" in body["text"]


def test_a_new_champion_is_told_and_no_news_is_not(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)
    _ends(changed=False)
    assert not receiver.bodies
    _ends(changed=True)
    (body,) = receiver.bodies
    assert "ham10000: promoted v0002" in body["text"]


def test_a_prefect_block_is_told_as_well(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = CustomWebhookNotificationBlock(
        name="team", url=receiver.url, json_data={"said": "{{body}}"}
    )
    block.save("team", overwrite=True)
    monkeypatch.setenv("LESIONFLOW_NOTIFICATION_BLOCK", "custom-webhook/team")
    _fail()
    (body,) = receiver.bodies
    assert "no such folder: /x" in body["said"]


@pytest.mark.parametrize(
    "trouble", ["refused", "unreachable", "malformed", "space", "newline", "port"]
)
def test_a_message_that_cannot_be_delivered_changes_nothing_and_keeps_the_address_secret(
    trouble: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.status = 403
    urls = {
        "refused": receiver.url,
        "unreachable": "http://127.0.0.1:1/hooks/a-secret",
        "malformed": "hooks/a-secret",
        "space": f"{receiver.url} and more",
        "newline": f"{receiver.url}\n",
        "port": "http://127.0.0.1:a-secret/hooks",
    }
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", urls[trouble])
    assert _ends(changed=True)["decision"]["changed"]
    said = caplog.text
    assert "LESIONFLOW_WEBHOOK_URL took no message" in said
    assert "a-secret" not in said


def test_without_an_address_nobody_is_told(receiver: Receiver) -> None:
    _fail()
    assert not receiver.bodies
