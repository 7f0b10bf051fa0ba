"""What was withdrawn in another clone leaves the caches of this one, too.

`data/withdrawn.csv` comes with a pull. What this clone has forgotten already is noted in a copy of
the list, so that nothing is done twice. The note follows the list back, too: who goes back to a
commit before a withdrawal may fill the caches again.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from components.atomic import write_text
from components.dataset.withdrawn import ID_COLUMNS, Entry, read_entries
from components.errors import TableError
from components.layout import Layout
from components.params import load_params


def forget_listed(layout: Layout) -> None:
    """Remove from the caches what was withdrawn since this was last done here.

    Checkpoints and finished models go where `storage` lies in the workspace. Another one may be
    shared: it was cleared where the images were withdrawn, and others may be training with it.

    Raises
    ------
    TableError
        The list is missing or damaged.
    """
    listed = read_entries(layout.withdrawn)
    noted = _noted(layout.forgotten)
    if listed == noted:
        return
    if listed <= noted or _forget(listed - noted, layout):
        note_forgotten(layout)


def note_forgotten(layout: Layout) -> None:
    """Note that the caches hold nothing of what is listed now."""
    write_text(layout.forgotten, layout.withdrawn.read_text(encoding="utf-8"))


def _noted(path: Path) -> set[Entry]:
    try:
        return read_entries(path)
    except TableError:
        return set()  # none yet, or damaged: all is forgotten once more


def _forget(entries: Set[Entry], layout: Layout) -> bool:
    """Forget what `entries` concern; return whether nothing is left."""
    # Imported when there is something to do, which is rare: it takes a second.
    from components.dataset.forget import forget, forget_trainings
    from components.dataset.known_images import concerned, known_images

    ids = {name: {value for column, value in entries if column == name} for name in ID_COLUMNS}
    hashes = {value for column, value in entries if column == "sha256"}
    found = forget(layout, *concerned(known_images(layout), ids, hashes))
    trainings, left = forget_trainings(load_params(layout.params).storage, layout, shared=False)
    gone = [*found.folders, *trainings]
    if found.num_entries or gone:
        print(
            f"withdrawn in another clone: {found.num_entries} entries removed from the caches here"
            f"{', and as a whole ' if gone else ''}{', '.join(gone)}",
            flush=True,
        )
    left = found.left | left
    for path, why in left.items():
        print(f"{path} may hold withdrawn images and cannot be removed ({why})", flush=True)
    return not left
