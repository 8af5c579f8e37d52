"""Which files a restored backup writes on this host: a pure function of the backup and of what is here.

Invariants, cited by number in the tests:
    1. A file is written below the PKI directory, at the cluster file's place, or at an absolute path that the backup's own
       cluster file names; nowhere else, whatever the backup calls it.
    2. A path that the cluster file names is written outside the directories of the cluster file and of the PKI only where
       that was asked for.
    3. What is here with the same content stays as it is; with another content it is replaced only by force.
    4. A private key or a passphrase is its owner's alone; no file gets a mode that lets it run, or lets everybody write.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from muster.app.backup.files import CLUSTER_FILE, ELSEWHERE, OF_BUNDLE, OF_CA, is_private, named
from muster.app.backup.manifest import OfFile
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown

# Whatever mode it had: who may write the cluster file, or what it names, is the cluster.
_MOST_MODE = 0o664

State = Literal["new", "same", "different", "elsewhere", "given"]


@dataclass(frozen=True)
class Placed:
    """A file of the backup, and what becomes of it.

    Attributes:
        path: where it goes here.
        state: ``new``: nothing is there; ``same``, ``different``: something is; ``elsewhere``: outside what is restored
            unless asked for; ``given``: this host's own counts.
        owner: the account it belonged to where the backup was made.
        replaced: the file here that has another content, where one has.
    """

    name: str
    path: Path
    mode: int
    state: State
    owner: str
    replaced: Path
    content: bytes = field(repr=False)

    @property
    def is_written(self) -> bool:
        return self.state in ("new", "different")


@dataclass(frozen=True)
class Here:
    """What of this host is decided on.

    Attributes:
        content: returns what a file holds; None: there is none.
        elsewhere: whether paths outside may be written.
        given: files that are this host's own, as the password of another database.
    """

    cluster_path: Path
    pki: Path
    content: Callable[[Path], bytes | None]
    elsewhere: bool = False
    given: frozenset[Path] = frozenset()


def decided(files: tuple[OfFile, ...], contents: dict[str, bytes], cluster: ClusterFile, here: Here) -> list[Placed]:
    """Return what becomes of every file, in their order, the cluster file last.

    ``contents`` are the backup's, with the cluster file as it is to be here; ``cluster`` is as the backup has it.

    Raises:
        Misconfigured: one has a place that no backup has.
    """
    allowed = {path for path, why in named(cluster).items() if not why}
    found = []
    for file in files:
        path, mode = _place(file, here, allowed)
        content = contents[file.name]
        state, replaced = _state(file.name, path, content, here)
        found.append(Placed(file.name, path, mode, state, file.owner, replaced, content))
    if twice := next((p for p, times in Counter(p.path for p in found).items() if times > 1), None):
        raise Misconfigured(f"Two files of the backup have their place at {twice}")
    return sorted(found, key=lambda p: p.name == CLUSTER_FILE)


def _place(file: OfFile, here: Here, allowed: set[Path]) -> tuple[Path, int]:
    first, _, rest = file.name.partition("/")
    if file.name == CLUSTER_FILE:
        return here.cluster_path, file.mode & _MOST_MODE
    if first == "pki" and (OF_CA.fullmatch(rest) or OF_BUNDLE.fullmatch(rest)) and ".." not in Path(rest).parts:
        return here.pki / rest, 0o600 if is_private(rest) else 0o644
    path = Path(f"/{rest}")
    if first == ELSEWHERE and path in allowed and str(path) == f"/{rest}":
        return path, file.mode & _MOST_MODE
    raise Misconfigured(
        f"The backup holds {shown(file.name)}, which its cluster file does not name; nothing was changed"
    )


def text_of(passphrase: Path) -> Path:
    """Return where a passphrase's text is written, to which a link of its name leads."""
    return passphrase.absolute().with_name(f"{passphrase.name}.txt")


def _state(name: str, path: Path, content: bytes, here: Here) -> tuple[State, Path]:
    """Return what becomes of a file, and what would be replaced by it."""
    if path in here.given:
        return "given", path
    roots = (here.cluster_path.absolute().parent, here.pki.absolute())
    if name.startswith(f"{ELSEWHERE}/") and not here.elsewhere and not any(path.is_relative_to(r) for r in roots):
        # What is not written may be anything here.
        with contextlib.suppress(Misconfigured):
            if here.content(path) == content:
                return "same", path
        return "elsewhere", path
    before = here.content(path)
    if before == content:
        return "same", path
    if before is None and name.startswith("pki/") and path.suffix == ".passphrase":
        path = text_of(path)
        before = here.content(path)
        return "new" if before in (None, content) else "different", path
    return "new" if before is None else "different", path
