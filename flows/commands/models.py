"""`predict`, `models`, `promote`, `rollback`, `pull` and `registry`: the promoted models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from components.layout import Layout
from flows.outcome import DISCLAIMER, print_table

registry_app = typer.Typer(help="Look after the registry.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(predict)
    app.command("models")(list_models)
    app.command()(promote)
    app.command()(rollback)
    app.command()(pull)
    registry_app.command("check")(check)
    registry_app.command("prune")(prune)
    app.add_typer(registry_app, name="registry")


def _registry() -> Any:
    from components.params import load_params
    from components.registry.versions import open_registry

    layout = Layout.find()
    return open_registry(load_params(layout.params).registry, layout)


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: Annotated[str, typer.Option(help="Version or alias.")] = "champion",
    any_picture: Annotated[
        bool,
        typer.Option("--any-picture", help="Also judge pictures unlike the training images."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Print the probability of each diagnosis and the malignancy score of images."""
    from components.registry.model import Classifier, prediction_document, prediction_text

    classifier = Classifier.from_registry(_registry(), model)
    frame = classifier.predict(paths, any_picture=any_picture)
    document = prediction_document(classifier, frame, any_picture=any_picture)
    print(json.dumps(document, indent=2) if as_json else prediction_text(document))
    if all(image["problem"] is not None for image in document["images"]):
        raise typer.Exit(2)


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the registered versions; the champion is marked."""
    from components.registry.versions import version_rows

    registry = _registry()
    rows = version_rows(registry)
    if as_json:
        print(json.dumps({"model_name": registry.model_name, "versions": rows}, indent=2))
    elif rows:
        print_table(rows, title=f"Versions of {registry.model_name}")
    else:
        print(f"no version of {registry.model_name} yet: run `lesionflow retrain`")


def promote(
    version: Annotated[str, typer.Argument(help="Version, such as v0002.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Hold a version against the gates again and make it champion; exit 1 if a gate fails."""
    from components.params import load_params
    from components.registry.promote import gate_rows, promote_version

    layout = Layout.find()
    decision = promote_version(load_params(layout.params), layout, version).as_dict()
    if as_json:
        print(json.dumps(decision, indent=2))
    else:
        print_table(gate_rows(decision), title="Gates")
        print(decision["reason"])
    if not decision["promoted"]:
        raise typer.Exit(1)


def rollback() -> None:
    """Make the previous champion champion again."""
    old, new = _registry().rollback()
    print(f"champion: {old} -> {new}")


def pull(
    folder: Annotated[Path, typer.Argument(help="New folder for the model's files.")],
    model: Annotated[str, typer.Option(help="Version or alias.")] = "champion",
) -> None:
    """Fetch a version into a folder, checksums verified."""
    version = _registry().pull(model, folder)
    print(f"{version} lies in {folder}")
    print(DISCLAIMER)


def check(
    repair: Annotated[bool, typer.Option(help="Remove what a crash left behind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Verify every version and alias; exit 1 if something is wrong."""
    findings = _registry().check(repair=repair)
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        for finding in findings:
            print(f"{finding['kind']}: {finding['name']}: {finding['detail']}")
        print(f"{len(findings)} finding{'' if len(findings) == 1 else 's'}")
    if any(not finding["repaired"] for finding in findings):
        sys.exit(1)


def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions to keep.")] = 5,
) -> None:
    """Remove old versions; champions, also former ones, and the challenger are always kept."""
    for name in _registry().prune(keep):
        print(f"removed {name}")
