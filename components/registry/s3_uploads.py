"""Uploads in parts that neither ended nor were given up: what a crash leaves on S3 of a large file.

No listing of objects shows their parts, and they are paid for until somebody removes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Upload:
    """An upload in parts; `last_written` is the time of its newest part, or of its start."""

    key: str
    upload_id: str
    last_written: datetime


def unfinished_uploads(client: Any, bucket: str, prefix: str) -> list[Upload]:
    """Return the uploads under way below `prefix`, by key.

    Parameters
    ----------
    client
        Of boto3.
    """
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [
        Upload(
            str(entry["Key"]),
            str(entry["UploadId"]),
            max([entry["Initiated"], *_part_times(client, bucket, entry)]),
        )
        for page in pages
        for entry in page.get("Uploads", ())
    ]


def _part_times(client: Any, bucket: str, entry: Any) -> list[datetime]:
    where = {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]}
    try:
        pages = list(client.get_paginator("list_parts").paginate(**where))
    except client.exceptions.NoSuchUpload:  # it ended meanwhile
        return []
    return [part["LastModified"] for page in pages for part in page.get("Parts", ())]


def abort_upload(client: Any, bucket: str, key: str, upload_id: str) -> None:
    """Remove the parts of an upload; one that is gone already is no error."""
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except client.exceptions.NoSuchUpload:
        return
