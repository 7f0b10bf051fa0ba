"""`use`, `retrain` and `tune`: the main job, and better hyperparameters for it."""

from __future__ import annotations

from typing import Annotated

import typer

from components.layout import Layout


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(use)
    app.command()(retrain)
    app.command()(tune)


def use(
    recipe: Annotated[str, typer.Argument(help="A recipe in params/, such as ham10000.")],
    source: Annotated[
        list[str] | None, typer.Option(help="Where the data lies; give it again for more.")
    ] = None,
    backbones: Annotated[str, typer.Option(help="Comma-separated names.")] = "",
    image_size: Annotated[int | None, typer.Option(help="Pixels, packed and trained.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated numbers, one training each.")] = "",
) -> None:
    """Put params/RECIPE.yaml in place as params.yaml, with these values."""
    from components.atomic import write_text
    from components.dataset.fingerprint import refresh_sources
    from components.params import load_params
    from components.recipes import compose_recipe
    from flows.workspace import exclusive

    layout = Layout.find()
    before = layout.params.read_text(encoding="utf-8")
    text, notes = compose_recipe(
        layout,
        recipe,
        sources=source or (),
        backbones=_names(backbones),
        image_size=image_size,
        seeds=_numbers(seeds),
    )
    with exclusive(layout):  # a run at work reads the parameters as it goes
        write_text(layout.params, text)
        try:
            refresh_sources(load_params(layout.params), layout)
        except BaseException:
            write_text(layout.params, before)
            raise
    print(f"params.yaml is now the recipe {recipe}")
    for note in notes:
        print(f"  {note}")
    print("next: lesionflow retrain")


def retrain(
    set_: Annotated[
        list[str] | None,
        typer.Option("-S", "--set", help="key=value, written into params.yaml before the run."),
    ] = None,
) -> None:
    """Bring everything up to date and promote the best model if it passes the gates."""
    from components.params import load_params
    from components.recipes import set_values
    from flows.imports import no_collection
    from flows.interrupts import interruptible
    from flows.server import workspace_server
    from flows.workspace import exclusive

    layout = Layout.find()
    with exclusive(layout):  # a run at work reads the parameters as it goes
        for change in set_values(layout, set_) if set_ else []:
            print(f"params.yaml: {change}", flush=True)
        load_params(layout.params)
        with interruptible(), workspace_server(layout) as wait_until_it_answers:
            with no_collection():
                from flows.outcome import print_outcome
                from flows.retrain import retrain as retrain_flow

                wait_until_it_answers()
            print_outcome(layout, retrain_flow(layout.root))


def tune(
    backbone: Annotated[str, typer.Argument(help="One of the backbones in params.yaml.")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the best values into params.yaml.")
    ] = False,
) -> None:
    """Search better hyperparameters for BACKBONE on validation (params.yaml: tune)."""
    from components.params import load_params
    from components.tuning.study import check_study
    from flows.interrupts import interruptible
    from flows.server import workspace_server

    layout = Layout.find()
    check_study(load_params(layout.params), backbone)
    with interruptible(), workspace_server(layout) as wait_until_it_answers:
        from flows.outcome import print_search
        from flows.tune import tune as tune_flow

        wait_until_it_answers()
        print_search(*tune_flow(layout.root, backbone, apply), apply=apply)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in _names(text)]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: give whole numbers, such as 0,1,2") from error
