"""What a process that answers knows of repositories: which are followed, and which versions of them lie on this disk.

The member writes it to a file; its workers read that, because it may be larger than what is said between processes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from muster.content import kinds
from muster.kernel import log
from muster.kernel.files import make_directory, write_atomically

_log = log.logger("content")

FILE = "known.json"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Followed(NamedTuple):
    """A repository.

    Attributes:
        manifests: of the versions on this disk, the one that is shown first, then from the newest.
        is_open: whoever asks the own Pulp for it gets it, also without a certificate, as that said a moment ago; None: as it
            said when it was asked last, which is too long ago for anybody to be let in by.
    """

    manifests: tuple[str, ...]
    is_open: bool | None


@dataclass
class Known:
    """Replaced as a whole; looked at by path.

    Attributes:
        repositories: by their path at Pulp.
    """

    repositories: Mapping[str, Followed] = field(default_factory=dict)
    # What archives there are: made anew when the repositories are others.
    _made_of: Mapping[str, Followed] | None = field(default=None, repr=False, compare=False)
    _archives: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, path: str) -> tuple[str, str] | None:
        """Return the repository that a path lies in, and the path below it; None: none that is followed."""
        return next(self.around(path), None)

    def around(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield all repositories that a path lies in, the innermost first, and the path below each."""
        at = path.rfind("/")
        while at > 0:
            if path[:at] in self.repositories:
                yield path[:at], path[at + 1 :]
            at = path.rfind("/", 0, at)

    def archive(self, path: str) -> tuple[tuple[str, ...], str]:
        """Return the suites of the archive that a path lies in, and the path below that; empty: it lies in none.

        They share their packages, which lie beside them.
        """
        if self._made_of is not self.repositories:
            found: dict[str, tuple[str, ...]] = {}
            for one in sorted(self.repositories):
                if (home := kinds.of(one).home(one)) != one:
                    found[home] = (*found.get(home, ()), one)
            self._archives, self._made_of = found, self.repositories
        at = path.rfind("/")
        while at > 0:
            if (suites := self._archives.get(path[:at])) is not None:
                return suites, path[at + 1 :]
            at = path.rfind("/", 0, at)
        return (), ""

    def write(self, file: Path) -> None:
        """Write it for others.

        Raises:
            Unavailable: the disk refused; what was there is as it was.
        """
        # Nothing may have come to this disk yet.
        make_directory(file.parent, mode=0o700)
        said = {path: [list(f.manifests), f.is_open] for path, f in self.repositories.items()}
        write_atomically(file, json.dumps(said, separators=(",", ":")).encode(), mode=0o600)

    def read(self, file: Path, *, is_of_now: bool = True, or_stay: bool = False) -> None:
        """Take what was written; what is not there, or is broken, or of another version, says nothing.

        ``is_of_now``: this member has written it since it runs, so what is open is so still. ``or_stay``: what is broken
        changes nothing.
        """
        found = {}
        try:
            said = json.loads(file.read_bytes())
            found = {p: Followed(tuple(m), _opened(is_open, is_of_now)) for p, (m, is_open) in said.items()}
            if not all(_DIGEST.match(one) for followed in found.values() for one in followed.manifests):
                raise ValueError("what is no digest stands for a version")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as e:
            # A process that ended for this would end again. It is written anew as soon as something has changed.
            _log.warning(f"Which repositories are followed cannot be read in {file}", why=str(e))
            found = dict(self.repositories) if or_stay else {}
        self.repositories = found


def _opened(said: bool | None, is_of_now: bool) -> bool | None:
    return None if said is None or (said and not is_of_now) else bool(said)
