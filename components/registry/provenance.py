"""Where a model comes from: data, split, parameters, code and libraries, as `model.json` says."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Sequence
from typing import Any

from components.backbones.saved import read_model
from components.layout import Layout
from components.params import Params
from components.registry.checksums import canonical_hash, sha256_of

_LIBRARIES = ("lesionflow", "numpy", "pillow", "ray", "timm", "torch", "torchvision")


def provenance_of(
    params: Params, layout: Layout, runs: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    """Return the provenance of a model made of these runs (backbone, seed)."""
    manifest = json.loads(layout.manifest.read_text(encoding="utf-8"))
    document = params.model_dump(mode="json")
    return {
        "recipe": params.recipe,
        "model_name": params.registry.model_name,
        "data": {
            "content_id": manifest["content_id"],
            "num_images": manifest["num_images"],
            "synthetic": bool(manifest["synthetic"]),
            "sources": manifest["sources"],
        },
        "split_sha256": sha256_of(layout.splits),
        "params": document,
        "params_sha256": canonical_hash(document),
        "git": git_state(layout),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "runs": [
            {"backbone": name, "seed": seed, **read_model(layout.run(name, seed)).provenance}
            for name, seed in runs
        ],
    }


def git_state(layout: Layout) -> dict[str, Any]:
    """Return the commit of the workspace, and whether it has changes that are not committed."""

    def ask(*command: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *command], cwd=layout.root, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changes = ask("status", "--porcelain", "--untracked-files=no")
    has_changes = None if changes is None else bool(changes)
    return {"commit": ask("rev-parse", "HEAD"), "has_changes": has_changes}
