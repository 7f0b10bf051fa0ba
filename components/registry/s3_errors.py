"""What S3 may answer, as errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import RegistryError

_REFUSED = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"}
)


@contextmanager
def explained(uri: str, bucket: str) -> Iterator[None]:
    """Turn botocore's errors into `RegistryError`.

    Everything that may pass has been tried again, with growing pauses, by the client.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise RegistryError(
            f"there are no complete credentials for S3: {error}",
            where=uri,
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        ) from error
    except ClientError as error:
        raise _refused(error, uri, bucket) from error
    except (BotoCoreError, Boto3Error) as error:
        raise RegistryError(
            f"the registry cannot be reached: {error}",
            where=uri,
            fix="check AWS_ENDPOINT_URL, AWS_REGION and the network, and run the command again; "
            "it was tried several times",
        ) from error


def _refused(error: object, uri: str, bucket: str) -> RegistryError:
    answer = error.response  # type: ignore[attr-defined]
    code = str(answer.get("Error", {}).get("Code", ""))
    if code == "NoSuchBucket":
        return RegistryError(
            f"there is no bucket {bucket!r}",
            where=uri,
            fix="make the bucket, or correct registry.uri in params.yaml",
        )
    if code in _REFUSED:
        return RegistryError(
            f"S3 refuses these credentials ({code})",
            where=uri,
            fix="check the AWS variables, and that they may list, read and write this bucket",
        )
    message = answer.get("Error", {}).get("Message") or code
    return RegistryError(
        f"S3 answers: {message}", where=uri, fix="check the URI and run the command again"
    )
