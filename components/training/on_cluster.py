"""A training as a Ray job: the part that runs on the cluster's head, as its driver.

The client puts our code and the job into the folder that this runs in (`remote.py`).

Usage: python -m components.training.on_cluster
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from components.cluster import connect
from components.errors import LesionflowError
from components.training.finished import leave
from components.training.remote import JOB, Order, check_shipped, failure_line
from components.training.trainer import train_to_end


def main() -> None:
    """Train what the client has ordered; its model stays in the storage."""
    order: Order = pickle.loads(Path(JOB).read_bytes())
    os.environ.update(order.environment | os.environ)  # the cluster may know better
    try:
        check_shipped(order.job)
        with connect():
            leave(order.job, train_to_end(order.job))
    except LesionflowError as error:
        print(failure_line(error), flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
