"""S3 as a storage: what is away for a minute is waited for, on the driver and on the workers."""

from __future__ import annotations

from typing import Any

from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

ATTEMPTS = 12
"""Of one request; the pauses between them grow to 20 seconds and are well over a minute in all."""
_CONNECT_SECONDS, _READ_SECONDS = 5, 60


class PatientS3(S3FileSystem):  # type: ignore[misc]
    """pyarrow's S3, with more patience than its own three attempts and three seconds.

    Travels to other processes as it is; pyarrow's would arrive there without its attempts.
    """

    def __init__(self, options: dict[str, Any], attempts: int = ATTEMPTS) -> None:
        super().__init__(
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_READ_SECONDS,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
            **options,
        )
        self._options = options

    def __reduce__(self) -> tuple[object, ...]:
        return PatientS3, (self._options,)
