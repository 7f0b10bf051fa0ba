"""What of a run is counted as work, and what as overhead."""

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks.whole_run import stage_seconds


def test_stages_beside_each_other_count_once_and_the_promotion_counts() -> None:
    events = [
        (0, "run_started"),
        (2, "stage_started"),  # 2 to 9: three stages, at least one of them at work
        (3, "stage_started"),
        (5, "stage_ended"),
        (6, "stage_started"),
        (8, "stage_failed"),
        (9, "stage_ended"),
        (9, "stage_cached"),
        (11, "stage_started"),  # 11 to 14, and the promotion behind it, to 18
        (14, "stage_ended"),
        (18, "promotion_decided"),
        (20, "run_ended"),
    ]
    noted = [
        {"time": datetime.fromtimestamp(seconds, UTC).isoformat(), "event": event}
        for seconds, event in events
    ]
    assert stage_seconds(noted) == 7 + 3 + 4
