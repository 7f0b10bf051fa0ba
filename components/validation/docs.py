"""Data Docs that need no internet: Great Expectations' own pages in a frame of ours.

Its renderers turn a suite's results into sections and tables; only the frame around them (head,
navigation, scripts and styles from content delivery networks) is replaced by templates that load
nothing. The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.atomic import write_text
from components.validation.expectations import Judge
from components.validation.sheets import sheet_name
from components.validation.summary import summary_rows

_TEMPLATES = Path(__file__).with_name("templates")


def write_docs(
    judge: Judge, summary: Mapping[str, Any], sheets: Sequence[str], folder: Path
) -> None:
    """Write `index.html` (all checks, contact sheets) and one page per suite to `folder`.

    Parameters
    ----------
    judge
        The context with the results of its suites.
    summary
        The document of `summary.json`.
    sheets
        Names of the checks that have a contact sheet in `<folder>/../sheets`.
    folder
        Where the pages go.
    """
    view = _offline_view()
    suites = list(judge.results)
    styles = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    index = view.env.get_template("lesionflow_index.j2").render(
        summary=summary,
        rows=summary_rows(summary),
        suites=suites,
        sheets=[(name, sheet_name(name)) for name in sheets],
        styles=styles,
    )
    write_text(folder / "index.html", index)
    for name in suites:
        write_text(folder / f"{name}.html", _suite_page(view, judge, name, styles))


def _suite_page(view: Any, judge: Judge, name: str, styles: str) -> str:
    from great_expectations.render.renderer import ValidationResultsPageRenderer

    renderer = ValidationResultsPageRenderer(run_info_at_end=False)
    document = renderer.render(judge.results[name])
    page = view.render(document, styles=styles, suite=name, suites=list(judge.results))
    # The suite's name links to a page of a full site, which is not written: link to this one.
    return str(page).replace(f"../../../../expectations/{name}.html", f"{name}.html")


def _offline_view() -> Any:
    """Return Great Expectations' page view with our templates in front of its own."""
    from great_expectations.render.view import DefaultJinjaPageView
    from jinja2 import ChoiceLoader, FileSystemLoader

    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([FileSystemLoader(_TEMPLATES), view.env.loader])
    return view
