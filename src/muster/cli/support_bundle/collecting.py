"""The pieces of a bundle collected side by side, and what of them leaves the site."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.cli.support_bundle import redaction as redacting
from muster.cli.support_bundle.pieces import CONTENTS, Piece, Wanted, pieces
from muster.cli.support_bundle.redaction import Redaction
from muster.cli.support_bundle.stand_ins import StandIns
from muster.kernel.errors import MusterError
from muster.kernel.files import read_bounded

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile

_CUT = "[{} bytes are left out here]\n"


@dataclass(frozen=True)
class Part:
    """One file as it is put into the archive.

    Attributes:
        content: None: there is none, and ``failed`` says why.
        redactions: how many secrets were hidden in it.
        replaced: how many names and addresses were given stand-ins.
    """

    name: str
    content: bytes | None
    redactions: int = 0
    replaced: int = 0
    cut_bytes: int = 0
    took_s: float = 0.0
    failed: str = ""

    def as_json(self) -> dict[str, Any]:
        size = len(self.content) if self.content is not None else None
        return {
            "file": self.name, "bytes": size, "redactions": self.redactions, "replaced": self.replaced,
            "cut_bytes": self.cut_bytes, "seconds": round(self.took_s, 2), "failed": self.failed or None,
        }  # fmt: skip


@dataclass(frozen=True)
class _Made:
    piece: Piece
    content: Any
    took_s: float
    failed: str = ""


async def collected(wanted: Wanted, *, anonymous: bool) -> list[Part]:
    """Return the files of a bundle, without secrets, ``contents.json`` first; whatever failed is named, and is no error."""
    from muster.kernel import log

    # What would be logged stands in the bundle; unconfigured, it would also stand between the lines of the list.
    log.configure(level="ERROR")
    cluster = _cluster(wanted)
    known: tuple[str, ...] = ()
    if cluster is not None:
        from muster.cli.support_bundle.settings import secrets_in

        known = secrets_in(cluster)
    asked = pieces(wanted, cluster)
    made = [_of_file(wanted, known), *await asyncio.gather(*(_made(p) for p in asked))]
    return _parts(made, known, _stand_ins(cluster) if anonymous else None)


def _cluster(wanted: Wanted) -> ClusterFile | None:
    from muster.app.settings import loaded

    try:
        return loaded(wanted.cluster_path)
    except MusterError:
        # config-check.json says why.
        return None


async def _made(piece: Piece) -> _Made:
    began = time.monotonic()
    content, failed = None, ""
    try:
        async with asyncio.timeout(piece.within_s):
            content = await piece.made()
    except TimeoutError:
        failed = f"it was not there within {piece.within_s:g} s"
    except MusterError as e:
        failed = str(e)
    except OSError as e:
        failed = f"{e.filename or 'It'} cannot be used: {e.strerror or e}"
    except Exception as e:  # noqa: BLE001 - boundary: a bundle is made when something is broken, which may be our own code
        failed = f"{type(e).__name__}: {e}"
    return _Made(piece, content, time.monotonic() - began, failed)


@dataclass
class _SettingsFile:
    """The cluster file's text, which loses its secrets by what the file itself says they are."""

    text: str
    redactions: int


def _of_file(wanted: Wanted, known: tuple[str, ...]) -> _Made:
    from muster.cli.support_bundle.settings import secret_names, store_url_shown

    async def nothing() -> None:
        return None

    piece, began, redaction = Piece("cluster.yaml", nothing), time.monotonic(), Redaction(known)
    try:
        text = read_bounded(wanted.cluster_path, what="cluster file").decode("utf-8", "replace")
        text = redacting.of_settings(text, redaction, secret_names(), {("store", "url"): store_url_shown})
    except MusterError as e:
        return _Made(piece, None, time.monotonic() - began, str(e))
    except ValueError as e:
        failed = f"{e}, so that nobody can tell what in it is secret; config-check.json says what is wrong with it"
        return _Made(piece, None, time.monotonic() - began, failed)
    return _Made(piece, _SettingsFile(text, redaction.count), time.monotonic() - began)


def _stand_ins(cluster: ClusterFile | None) -> StandIns:
    found = StandIns()
    names = [socket.gethostname()]
    if cluster is not None:
        from muster.cli.support_bundle.settings import hosts_in

        members = [str(m.name) for m in cluster.members] + [str(b.name) for b in cluster.balancers]
        names = [str(cluster.address), *members, *hosts_in(cluster), *names]
    found.learn(names)
    return found


def _parts(made: Sequence[_Made], known: tuple[str, ...], stand_ins: StandIns | None) -> list[Part]:
    told = [(m, *_told(m, known)) for m in made]
    if stand_ins is not None:
        # Before the first is changed: the same name has the same stand-in in all of them.
        for piece, text, _, failed in told:
            if piece.piece.is_of_site:
                stand_ins.learn_from(text)
                stand_ins.learn_from(failed)
    parts = [_part(m, text, count, failed, stand_ins) for m, text, count, failed in told]
    parts.sort(key=lambda p: p.name)
    listed = json.dumps([p.as_json() for p in parts], indent=2, ensure_ascii=False) + "\n"
    return [Part(CONTENTS, listed.encode()), *parts]


def _told(made: _Made, known: tuple[str, ...]) -> tuple[str, int, str]:
    """Return a piece's text without secrets, how many it held, and why it failed, in words without secrets."""
    redaction = Redaction(known)
    failed = redaction.text(made.failed)
    if made.content is None or failed:
        return "", redaction.count, failed
    if isinstance(made.content, _SettingsFile):
        return made.content.text, made.content.redactions, ""
    if isinstance(made.content, str):
        return redaction.text(made.content), redaction.count, ""
    # By value: in JSON a line end is two characters, and what stands behind a secret's name is one.
    content = redaction.value(made.content)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n", redaction.count, ""


def _part(made: _Made, text: str, redactions: int, failed: str, stand_ins: StandIns | None) -> Part:
    name, before = made.piece.name, stand_ins.count if stand_ins is not None else 0
    if stand_ins is not None:
        name, text, failed = stand_ins.text(name), stand_ins.text(text), stand_ins.text(failed)
    replaced = stand_ins.count - before if stand_ins is not None else 0
    if failed:
        return Part(name, None, redactions, replaced, 0, made.took_s, failed)
    content, cut = _bounded(text.encode("utf-8", "replace"), made.piece)
    return Part(name, content, redactions, replaced, cut, made.took_s)


def _bounded(content: bytes, piece: Piece) -> tuple[bytes, int]:
    """Return at most the piece's bytes, whole lines of them, and how many are left out."""
    more = len(content) - piece.limit_bytes
    if more <= 0:
        return content, 0
    if piece.keeps_end:
        kept = content[more - 1 :].partition(b"\n")[2]
        return _CUT.format(len(content) - len(kept)).encode() + kept, len(content) - len(kept)
    kept = content[: piece.limit_bytes].rpartition(b"\n")[0] + b"\n"
    return kept + _CUT.format(len(content) - len(kept)).encode(), len(content) - len(kept)
