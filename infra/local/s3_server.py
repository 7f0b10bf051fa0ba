"""An S3 endpoint on 127.0.0.1 for trying out `s3://` registries, storage and DVC remotes.

It keeps everything in memory and knows no secrets: never use it for data that matter.
Run by `make s3`; prints the variables to set.
"""

from __future__ import annotations

import argparse
import threading

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "lesionflow"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5055)
    port = parser.parse_args().port
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    client.create_bucket(Bucket=BUCKET)
    print(f"S3 answers at {url}, bucket {BUCKET}. In another terminal:\n")
    print(f"  export AWS_ENDPOINT_URL={url} AWS_DEFAULT_REGION=us-east-1")
    print("  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local")
    print(f"  lesionflow retrain -S registry.uri=s3://{BUCKET}/registry\n", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
