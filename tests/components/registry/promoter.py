"""A process that promotes: publishes a version per word and asks to be champion with each.

Usage: python promoter.py URI START_FILE WORD...

Waits for START_FILE, then prints one JSON document: what became of each word.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from components.registry.aliases import PromotionConflictError
from components.registry.store import open_store
from components.registry.versions import Registry


def main(uri: str, start: Path, *words: str) -> None:
    """Promote each word once."""
    registry = Registry(open_store(uri, Path.cwd()), "tiny", start.parent / "cache")
    registry.aliases()
    Path(f"{start}.{words[0]}").touch()
    while not start.exists():
        time.sleep(0.002)
    outcome = {}
    for word in words:
        champion = registry.alias("champion")
        version = registry.publish({"model.json": f'"{word}"'.encode()}, content_id=word)
        try:
            registry.promote(version, champion, {"word": word})
            outcome[word] = [version, "promoted"]
        except PromotionConflictError as error:
            outcome[word] = [version, error.what]
    print(json.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
