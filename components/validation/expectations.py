"""Great Expectations at work: a suite of checks on a table in, outcomes and its own results out.

Great Expectations decides whether a row meets an expectation; what follows from that is decided by
our severities (`verdict.py`), never by its `success` of a whole suite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.validation.checks import Check, Outcome, Suite, off

_GX_SEVERITY = {"error": "critical", "quarantine": "warning", "warning": "info"}
_SOURCE = "lesionflow"


class Judge:
    """One ephemeral context of Great Expectations and the suites that it ran.

    Attributes
    ----------
    results
        Suite name -> `ExpectationSuiteValidationResult`, without times and random ids.
    """

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        self._gx = gx
        self._context = gx.get_context(mode="ephemeral", project_config=config)
        self._source = self._context.data_sources.add_pandas(_SOURCE)
        self.results: dict[str, Any] = {}

    def run(self, suite: Suite) -> list[Outcome]:
        """Run the checks of `suite` that are not off; one outcome per check, in their order."""
        checks = [check for check in suite.checks if not off(check)]
        if not checks:
            return []
        definition = self._definition(suite, checks)
        result = definition.run(
            batch_parameters={"dataframe": suite.frame},
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": list(suite.key),
            },
        )
        _refuse_exceptions(suite, result)
        self.results[suite.name] = _without_volatile(result, suite, checks)
        by_name = {entry.expectation_config.meta["check"]: entry for entry in result.results}
        return [_outcome(suite, check, by_name[check.name]) for check in checks]

    def _definition(self, suite: Suite, checks: list[Check]) -> Any:
        asset = self._source.add_dataframe_asset(suite.name)
        batch = asset.add_batch_definition_whole_dataframe("all rows")
        expected = self._gx.ExpectationSuite(name=suite.name)
        for check in checks:
            expectation = getattr(self._gx.expectations, check.expectation)
            expected.add_expectation(
                expectation(
                    **check.arguments,
                    description=f"{check.title} ({check.name}: {check.severity})",
                    severity=_GX_SEVERITY[check.severity],
                    meta={"check": check.name, "severity": check.severity},
                )
            )
        self._context.suites.add(expected)
        definition = self._gx.ValidationDefinition(name=suite.name, data=batch, suite=expected)
        return self._context.validation_definitions.add(definition)


def _refuse_exceptions(suite: Suite, result: Any) -> None:
    """Raise when an expectation could not be evaluated: a bug, not a finding."""
    for entry in result.results:
        message = _exception_message(entry.exception_info)
        if message is not None:
            name = entry.expectation_config.meta["check"]
            raise RuntimeError(f"{name} on {suite.name} could not be evaluated: {message}")


def _exception_message(info: Mapping[str, Any]) -> str | None:
    if "raised_exception" in info:
        return str(info["exception_message"]) if info["raised_exception"] else None
    nested = (_exception_message(value) for value in info.values())
    return next((message for message in nested if message is not None), None)


def _without_volatile(result: Any, suite: Suite, checks: list[Check]) -> Any:
    """Take times and random ids out of `result`, and order its entries as the checks."""
    order = {check.name: number for number, check in enumerate(checks)}
    result.results.sort(key=lambda entry: order[entry.expectation_config.meta["check"]])
    result.id = None
    result.meta = {
        "great_expectations_version": result.meta["great_expectations_version"],
        "batch_spec": {"data_asset_name": suite.name},
    }
    for entry in result.results:
        entry.expectation_config.id = None
        entry.result.pop("unexpected_index_query", None)
    return result


def _outcome(suite: Suite, check: Check, entry: Any) -> Outcome:
    result = entry.result
    reasons: dict[str, str] = {}
    offenders: list[str] = []
    if not entry.success:
        for row in _offending_rows(suite, check, result):
            offenders.append(suite.row_name.format_map(row))
            for name in suite.images:
                image = str(row[name])
                reason = check.reason(row, image)
                reasons[image] = f"{reasons[image]}; {reason}" if image in reasons else reason
        offenders += [str(name) for name in _missing_columns(result)]
    return Outcome(
        suite=suite.name,
        check=check,
        success=bool(entry.success),
        observed=_observed(suite.frame, check, result),
        offenders=tuple(dict.fromkeys(offenders)),
        reasons=reasons,
        rows=suite.rows,
    )


def _offending_rows(suite: Suite, check: Check, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that Great Expectations named, in the order of the table."""
    num_broken = result.get("unexpected_count", 0)
    if not num_broken or not suite.key:
        return []
    names = list(suite.key)
    broken = {tuple(entry[name] for name in names) for entry in result["unexpected_index_list"]}
    mask = [key in broken for key in suite.frame[names].itertuples(index=False, name=None)]
    if sum(mask) < num_broken:
        raise RuntimeError(f"{check.name}: only {sum(mask)} of {num_broken} offenders are named")
    return [
        {str(name): value for name, value in row.items()}
        for row in suite.frame[mask].to_dict("records")
    ]


def _missing_columns(result: Mapping[str, Any]) -> list[str]:
    details = result.get("details") or {}
    return list(details.get("mismatched", {}).get("missing", []))


def _observed(frame: pd.DataFrame, check: Check, result: Mapping[str, Any]) -> str:
    """Say in a few words what the column holds."""
    kind, column = check.expectation, check.arguments.get("column")
    if kind == "ExpectColumnValuesToBeBetween":
        values = frame[column].dropna()
        return f"{values.min():.4g} to {values.max():.4g}" if len(values) else "no value"
    if kind in ("ExpectColumnValuesToBeInSet", "ExpectColumnValuesToNotBeInSet"):
        return _other_values(result, check.arguments["value_set"])
    if kind == "ExpectColumnPairValuesAToBeGreaterThanB":
        return f"largest PSI {frame[check.arguments['column_B']].max():.3g}"
    if "unexpected_count" in result:
        count = result["unexpected_count"]
        missing = " missing" if kind == "ExpectColumnValuesToNotBeNull" else ""
        return f"{count} of {len(frame)}{missing} ({count / max(len(frame), 1):.1%})"
    observed = result["observed_value"]
    return f"{len(observed)} columns" if isinstance(observed, list) else str(observed)


def _other_values(result: Mapping[str, Any], expected: list[Any]) -> str:
    num_values = result["element_count"] - result["missing_count"]
    if not num_values:
        return "no value"
    if expected == [True]:
        return f"{num_values - result['unexpected_count']} of {num_values}"
    counts = {str(entry["value"]): entry["count"] for entry in result["partial_unexpected_counts"]}
    if not counts:
        return f"all {num_values} as expected"
    return ", ".join(f"{value}: {count}" for value, count in sorted(counts.items()))
