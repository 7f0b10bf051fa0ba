"""`audit` and `withdraw`: what the data say, and what must leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.errors import CheckFailedError
from components.layout import Layout


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(audit)
    app.command()(withdraw)


def audit(
    splits: Annotated[Path, typer.Argument(help="Table with image_id and split.")],
    labels: Annotated[Path, typer.Option(help="Table with image_id and lesion_id.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Look for lesions and patients in more than one part of anybody's split; exit 1 if any."""
    from components.splitting.audit import audit as audit_tables
    from components.splitting.audit import audit_text
    from components.tables import read_table

    found = audit_tables(
        read_table(splits, required=("image_id", "split")),
        read_table(labels, required=("image_id", "lesion_id")),
    )
    print(json.dumps(found, indent=2) if as_json else audit_text(found))
    if found["leaking_lesions"]:
        raise typer.Exit(CheckFailedError.exit_code)


def withdraw(
    image: Annotated[list[str] | None, typer.Option(help="Image id; give it again.")] = None,
    lesion: Annotated[list[str] | None, typer.Option(help="Lesion id; give it again.")] = None,
    patient: Annotated[list[str] | None, typer.Option(help="Patient id; give it again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Take images out of the next snapshot and name every model that was trained on them."""
    from components.dataset.withdraw import withdraw as withdraw_images
    from components.dataset.withdraw import withdrawal_text
    from flows.workspace import exclusive

    layout = Layout.find()
    with exclusive(layout):  # two at once would lose ids; a run at work fills the caches again
        found = withdraw_images(layout, image or [], lesion or [], patient or [])
    print(json.dumps(found, indent=2) if as_json else withdrawal_text(found))
