"""The way of the data: what each stage costs on HAM10000, and on what arrives a month later.

Takes HAM10000 and then its increment (`LESIONFLOW_REAL_DATA`) through the real stages in a fresh
workspace, one process each as under DVC. Also: packing against bare Pillow on as many threads; and
how well near-duplicates are found when the lesion ids are hidden (pictures of one lesion are the
known answers); and how long an audit of a split table of HAM10000 takes, as a command and in a
process that has everything loaded.

Usage: python -m benchmarks.dataset [pack] [stages] [pairs] [audit]
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import binomtest

from benchmarks.machine import write_results
from components.dataset.config import PairsParams
from components.dataset.decode import PackSpec
from components.dataset.measure import measure_images
from components.dataset.originals import OriginalsWriter
from components.dataset.pack import pack_images
from components.dataset.pairs import find_pairs
from components.dataset.workers import num_cores
from components.splitting.audit import audit
from components.tables import read_table

_REPO = Path(__file__).resolve().parents[1]
_REAL = Path(os.environ.get("LESIONFLOW_REAL_DATA", _REPO.parent / "shared" / "data"))
_STAGES = ("ingest", "measure", "pairs", "validate", "split", "pack")
_MODULES = {
    "ingest": "components.dataset.ingest",
    "measure": "components.dataset.measure",
    "pairs": "components.dataset.pairs",
    "validate": "components.validation.validate",
    "split": "components.splitting.split",
    "pack": "components.dataset.pack",
}
_REFRESH = """
from components.dataset.fingerprint import refresh_sources
from components.layout import Layout
from components.params import load_params
layout = Layout.find()
refresh_sources(load_params(layout.params), layout)
"""
Row = dict[str, object]


def main() -> None:
    """Measure what is asked for (default: all), print, and write `results/dataset_*.csv`."""
    parts: dict[str, Callable[[], list[Row]]] = {
        "pack": pack_against_bare,
        "stages": stages,
        "pairs": hidden_lesions,
        "audit": audit_command,
    }
    for name in sys.argv[1:] or parts:
        rows = parts[name]()
        for row in rows:
            print(f"{row['case']}: {row['value']} {row['unit']}", flush=True)
        write_results(f"dataset_{name}", rows)


# --- packing -----------------------------------------------------------------------------------


def pack_against_bare(size: int = 128, rounds: int = 3) -> list[Row]:
    """Pack all images from nothing, and decode and resize the same files with Pillow alone."""
    labels, files = _listed()
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as name:
        folder = Path(name)
        images = _originals(files, folder / "images")
        quality = measure_images(labels, images, folder / "cache")
        bare, packed = [], []
        for number in range(rounds):
            bare.append(_seconds(lambda: _bare([str(path) for path in files], size)))
            target = folder / f"packed{number}"
            with contextlib.redirect_stdout(io.StringIO()):
                packed.append(
                    _seconds(
                        lambda: pack_images(
                            quality,
                            images,
                            PackSpec(size, "crop"),
                            target,  # noqa: B023 - called at once
                            folder / f"shelf{number}",  # noqa: B023
                        )
                    )
                )
    rates = [len(files) / median(times) for times in (bare, packed)]
    return [
        {
            "case": f"bare Pillow, {num_cores()} threads",
            "value": round(rates[0]),
            "unit": "images/s",
        },
        {"case": "pack from nothing", "value": round(rates[1]), "unit": "images/s"},
        {"case": "pack / bare Pillow", "value": round(rates[1] / rates[0], 2), "unit": "ratio"},
    ]


def _bare(paths: Sequence[str], size: int) -> None:
    def decode(path: str) -> None:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((size, size)))

    with ThreadPoolExecutor(num_cores()) as pool:
        for _ in pool.map(decode, paths):
            pass


# --- the stages --------------------------------------------------------------------------------


def stages() -> list[Row]:
    """Run the stages on HAM10000, on HAM10000 and its increment, and with another threshold."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as name:
        workspace = Path(name) / "workspace"
        subprocess.run(["git", "clone", "-q", str(_REPO), str(workspace)], check=True)
        first, second = str(_REAL / "ham10000"), str(_REAL / "ham10000-increment")
        rows += _all_stages(workspace, "first run", [first])
        rows += _all_stages(workspace, "193 more images", [first, second])
    return rows


def _all_stages(workspace: Path, what: str, sources: Sequence[str]) -> list[Row]:
    given = [part for source in sources for part in ("--source", source)]
    lesionflow = [sys.executable, "-m", "flows.cli"]
    _watched([*lesionflow, "use", "ham10000", *given], workspace)
    rows: list[Row] = []
    total = 0.0
    for stage in ("look at sources", *_STAGES):
        command = ["-c", _REFRESH] if stage not in _MODULES else ["-m", _MODULES[stage]]
        took, peak = _watched([sys.executable, *command], workspace)
        total += took if stage != "pairs" else 0
        rows.append({"case": f"{what}: {stage}", "value": round(took, 1), "unit": "s"})
        rows.append({"case": f"{what}: {stage}, peak", "value": round(peak), "unit": "MiB"})
    return [*rows, {"case": f"{what}: all but pairs", "value": round(total, 1), "unit": "s"}]


def _watched(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run `command`; return seconds, and the peak memory in MiB of its largest process."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, start_new_session=True)
    peaks: dict[str, float] = {}
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peaks, done))
    watcher.start()
    code = process.wait()
    took = time.monotonic() - started
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    return took, max(peaks.values(), default=0.0)


def _watch(session: int, peaks: dict[str, float], done: threading.Event) -> None:
    while not done.wait(0.1):
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = status.parent.name
                if os.getsid(int(pid)) != session:
                    continue
                for line in status.read_text().splitlines():
                    if line.startswith("VmHWM"):
                        peaks[pid] = max(peaks.get(pid, 0.0), int(line.split()[1]) / 1024)


# --- near-duplicates ---------------------------------------------------------------------------


def hidden_lesions() -> list[Row]:
    """Search HAM10000 without lesion ids, and compare what is found with them.

    Half of the lesions choose the threshold, the other half says what it is worth. Of the joined
    pairs of two lesions nobody knows which are right; how many can be wrong follows from how often
    diagnosis, sex and age agree in them, and in candidates that were turned down.
    """
    labels, files = _listed()
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as name:
        folder = Path(name)
        images = _originals(files, folder / "images")
        quality = measure_images(labels, images, folder / "cache")
        hidden = labels.assign(lesion_id=None)
        everything = PairsParams.model_construct(enabled=True, min_evidence=-float("inf"))
        started = time.monotonic()
        pairs = find_pairs(hidden, quality, images, everything, folder / "cache")
        took = time.monotonic() - started
    lesion_of = labels.set_index("image_id")["lesion_id"]
    lesions = pd.DataFrame({side: pairs[f"image_id_{side}"].map(lesion_of) for side in "ab"})
    evidence = (pairs["inliers"] - 3) * pairs["similarity"]
    evidence = evidence.where(pairs["evidence"] == "same spot", float("inf"))
    one = lesions["a"] == lesions["b"]
    known = lesion_of.groupby(lesion_of).size().map(lambda count: count * (count - 1) // 2)
    halves = {half: set(known.index[half::2]) for half in (0, 1)}

    def found(threshold: float, within: set[str]) -> float:
        count = (one & (evidence >= threshold) & lesions["a"].isin(within)).sum()
        return float(count / known[list(within)].sum())

    agree = _agreement(lesions)

    def disagreeing(threshold: float, within: set[str]) -> float:
        wrong = ~one & (evidence >= threshold) & ~agree
        return len((set(lesions["a"][wrong]) | set(lesions["b"][wrong])) & within) / len(within)

    grid = [step / 20 for step in range(10, 41)]
    chosen = max(grid, key=lambda t: found(t, halves[0]) - disagreeing(t, halves[0]))
    ours = PairsParams().min_evidence
    other = ~one & (evidence >= ours)
    joined = len(set(lesions["a"][other]) | set(lesions["b"][other])) / len(known)
    by_chance = float(agree[~one & (evidence < ours / 4)].mean())
    agreeing, count = int(agree[other].sum()), int(other.sum())
    least = binomtest(agreeing, count).proportion_ci(0.95, "wilson").low
    wrong = 1 - (least - by_chance) / (1 - by_chance)
    return [
        {"case": "search over all pairs", "value": round(took, 1), "unit": "s"},
        {"case": "pairs of one lesion", "value": int(known.sum()), "unit": "pairs"},
        {
            "case": f"found from {ours} on",
            "value": round(found(ours, set(known.index)), 4),
            "unit": "share",
        },
        {"case": "threshold that half of the lesions chooses", "value": chosen, "unit": "evidence"},
        {
            "case": "found from that on, other half",
            "value": round(found(chosen, halves[1]), 4),
            "unit": "share",
        },
        {
            "case": f"found from {ours} on, other half",
            "value": round(found(ours, halves[1]), 4),
            "unit": "share",
        },
        {"case": "pairs of two lesions that were joined", "value": count, "unit": "pairs"},
        {
            "case": "of them diagnosis, sex and age agree",
            "value": round(agreeing / count, 3),
            "unit": "share",
        },
        {
            "case": "of candidates turned down they agree",
            "value": round(by_chance, 3),
            "unit": "share",
        },
        {
            "case": "lesions joined to another (rightly or wrongly)",
            "value": round(joined, 4),
            "unit": "share",
        },
        {
            "case": "lesions wrongly joined to another, at most (95 %)",
            "value": round(wrong * joined, 4),
            "unit": "share",
        },
    ]


def _agreement(lesions: pd.DataFrame) -> pd.Series[bool]:
    """Return for each pair of lesions whether diagnosis, sex and age (within 5 years) agree."""
    table = pd.read_csv(_REAL / "ham10000" / "HAM10000_metadata.csv").drop_duplicates("lesion_id")
    facts = table.set_index("lesion_id")[["dx", "sex", "age"]]
    a, b = (facts.loc[lesions[side]].reset_index(drop=True) for side in "ab")
    return (a["dx"] == b["dx"]) & (a["sex"] == b["sex"]) & ((a["age"] - b["age"]).abs() <= 5)


# --- the audit ---------------------------------------------------------------------------------


def audit_command(rounds: int = 5) -> list[Row]:
    """Audit a split of single images: `lesionflow audit`, and what it does without its start."""
    labels = _REAL / "ham10000" / "HAM10000_metadata.csv"
    images = pd.read_csv(labels)["image_id"]
    part = np.random.default_rng(0).choice(["train", "val", "test"], len(images), p=[0.8, 0.1, 0.1])
    with tempfile.TemporaryDirectory(prefix="lesionflow-bench-") as name:
        splits = Path(name) / "split.csv"
        pd.DataFrame({"image_id": images, "split": part}).to_csv(splits, index=False)
        audited = ["audit", str(splits), "--labels", str(labels), "--json"]
        command = [sys.executable, "-m", "flows.cli", *audited]
        bare = [sys.executable, "-c", "import pandas"]
        started = [_seconds(lambda: _ends_with(command, 1)) for _ in range(rounds)]
        imported = [_seconds(lambda: _ends_with(bare, 0)) for _ in range(rounds)]
        _audit(splits, labels)
        warm = [_seconds(lambda: _audit(splits, labels)) for _ in range(rounds)]
    what = f"audit of {len(images):,} images"
    return [
        {"case": f"{what}, as a command", "value": round(median(started), 2), "unit": "s"},
        {"case": "bare import of pandas", "value": round(median(imported), 2), "unit": "s"},
        {
            "case": "command / bare import",
            "value": round(median(started) / median(imported), 2),
            "unit": "ratio",
        },
        {"case": f"{what}, in a warm process", "value": round(median(warm), 3), "unit": "s"},
    ]


def _audit(splits: Path, labels: Path) -> None:
    """Do what the command does once it has started."""
    found = audit(
        read_table(splits, required=("image_id", "split")),
        read_table(labels, required=("image_id", "lesion_id")),
    )
    assert found["leaks"]
    json.dumps(found, indent=2)


def _ends_with(command: Sequence[str], code: int) -> None:
    """Run `command`, which must end with `code` (1: the audit found leaks)."""
    done = subprocess.run(command, cwd=_REPO, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")


# --- what they share ---------------------------------------------------------------------------


def _listed() -> tuple[pd.DataFrame, list[Path]]:
    """Return labels of HAM10000 (without hashes) and its files in the same order."""
    metadata = pd.read_csv(_REAL / "ham10000" / "HAM10000_metadata.csv").sort_values("image_id")
    found = {path.stem: path for path in (_REAL / "ham10000").rglob("*.jpg")}
    labels = metadata[["image_id", "lesion_id"]].assign(sha256=None, source="ham10000")
    labels = labels.reset_index(drop=True)
    return labels, [found[image_id] for image_id in labels["image_id"]]


def _originals(files: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    with OriginalsWriter(folder, "ham10000") as writer:
        for path in sorted(files, key=lambda path: path.stem):
            writer.add(path.stem, path.suffix, path.read_bytes())
    return folder


def _seconds(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
