"""`score`, `evaluate` and `compare`: numbers from prediction tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from components.layout import Layout


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(score)
    app.command()(evaluate)
    app.command()(compare)


def score(
    predictions: Annotated[Path, typer.Argument(help="image_id, diagnosis, p_<class> …")],
    resamples: Annotated[
        int, typer.Option(min=100, max=100_000, help="Bootstrap resamples.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Compute every metric, with 95 % intervals, from anybody's prediction table."""
    from components.evaluation.score import score_table, score_text
    from components.tables import read_table

    frame = read_table(predictions, required=("image_id",))
    document = score_table(frame, resamples=resamples, seed=seed)
    print(json.dumps(document, indent=2) if as_json else score_text(document))


def evaluate(
    source: Annotated[list[str], typer.Option(help="Labelled data; give it again for more.")],
    model: Annotated[str, typer.Option(help="Version or alias of the registry.")] = "champion",
    kind: Annotated[str, typer.Option(help="Reader; default: that of params.yaml.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Measure a registered model on any labelled source."""
    from components.evaluation.external import evaluate_source
    from components.evaluation.score import score_text

    document = evaluate_source(Layout.find(), sources=source, model=model, kind=kind or None)
    print(json.dumps(document, indent=2) if as_json else score_text(document))


def compare(
    first: Annotated[str, typer.Argument(help="Version or alias.")],
    second: Annotated[str, typer.Argument(help="Version or alias.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Hold two registered versions side by side on the test images that both have predicted."""
    from components.registry.compare import compare_text, compare_versions

    document = compare_versions(Layout.find(), first, second)
    print(json.dumps(document, indent=2) if as_json else compare_text(document))
