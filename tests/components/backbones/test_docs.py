"""The page on backbones names every backbone and every published file."""

from __future__ import annotations

from pathlib import Path

from components.backbones.zoo import ZOO


def test_the_page_is_complete(repo: Path) -> None:
    page = (repo / "docs" / "backbones.md").read_text(encoding="utf-8")
    names = [entry.name for entry in ZOO.values()]
    files = [name for entry in ZOO.values() for item in entry.published for name in item.names]
    assert [name for name in names + files if f"`{name}`" not in page] == []
    for entry in ZOO.values():
        assert f"| `{entry.name}` | {entry.library} |" in page
        row = next(line for line in page.splitlines() if line.startswith(f"| `{entry.name}` |"))
        assert f"| {entry.num_features} | {entry.image_size} / {entry.min_image_size} |" in row
