"""What a derived output is, and its documents; the one shape that the command line and the tests know."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.kernel.files import make_directory, write_atomically

Need = Literal["balancer", "member", "pki", "run"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text that another program reads.

    Attributes:
        name: of its file, where nobody chooses another; of several that lie together it may be a path below their directory:
            ``proxy01.example.net/settings.yml``.
        consumer: the program, as it is called in a shell; empty: people read it.
    """

    name: str
    text: str
    consumer: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Option:
    """What one output alone may be told on the command line; its value stands in :attr:`Site.given`, None when absent.

    Attributes:
        word: as ``script-path``; among the values its dashes are underscores.
    """

    word: str
    help: str
    kind: Literal["flag", "file", "text"] = "flag"


@dataclass(frozen=True, slots=True)
class Site:
    """What follows neither from the cluster file nor from the model: where documents will be read, and what was asked for.

    Attributes:
        balancer: for whom; None: the file's only one.
        member: for whom; None: for each of them.
        run: directory of sockets and running state.
        pki: directory of ``ca.pem`` and ``check.pem``, which balancers ask members with.
        place: the file or directory that the documents are for; None: nobody said.
        dual_stack: whether the host has IPv6; decides what ``bind: "*"`` means.
        given: values of the output's own options, and what it learned from this host.
    """

    run: Path = Path("/run/muster")
    pki: Path = Path("/etc/muster/pki/balancer")
    balancer: str | None = None
    member: str | None = None
    place: Path | None = None
    dual_stack: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)

    def members(self, cluster: ClusterFile) -> tuple[Member, ...]:
        """Return the members that documents are for.

        Raises:
            Rejected: the one that is named is none.
        """
        return cluster.members if self.member is None else (cluster.member(self.member),)


@dataclass(frozen=True, slots=True)
class Place:
    """Where documents lie when they are in use.

    Attributes:
        said: in words, for help.
        of: the file, or the directory of several.
    """

    said: str
    of: Callable[[Site], Path]


@dataclass(frozen=True, slots=True)
class Trial:
    """How the real consumer is asked what it thinks of documents.

    Attributes:
        consumer: the program that is asked, as in :class:`Document`.
        help: what ``--check`` does, one sentence.
        asked: returns when it accepts the documents, which lie in a directory of their own under their names. Raises
            ``Rejected`` with the consumer's words when it does not, ``Unavailable`` when it is not installed or silent.
        scratch_run: whether it makes files in its run directory although it only checks; it is told of that directory then.
    """

    consumer: str
    help: str
    asked: Callable[[Path, Sequence[Document]], Awaitable[None]]
    scratch_run: bool = False


def _nothing(balancing: Balancing, cluster: ClusterFile, site: Site) -> Sequence[str]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class Output:
    """What follows from the cluster file for one other program.

    Attributes:
        word: its name on the command line.
        help: what its command does, one sentence.
        goes: where its documents go and what is done with them there, for people; one or two sentences.
        rendered: returns the documents, in the order in which they may be written; pure.
        needs: what of the site it looks at, so that the command line asks for nothing else.
        options: what it alone may be told.
        as_json: what programs are shown, from a site on which nothing was learned; None: each text under its name.
        lacks: what the consumer does not do and HAProxy would, one sentence each.
        says_lacks: whether the documents say so themselves; otherwise the command does.
        check: how the consumer is asked; None: there is no program that could be.
        learned: asks this host for what rendering needs besides, such as the consumer's version.
        installed: where the documents lie when they are in use; None: where people put them.
        in_directory: several documents that name each other, or one?
        output_help: what ``--output`` means.
    """

    word: str
    help: str
    rendered: Callable[[Balancing, ClusterFile, Site], tuple[Document, ...]]
    goes: str = ""
    needs: frozenset[Need] = frozenset()
    options: tuple[Option, ...] = ()
    as_json: Callable[[Balancing, ClusterFile, Site], Any] | None = None
    lacks: Callable[[Balancing, ClusterFile, Site], Sequence[str]] = _nothing
    says_lacks: bool = True
    check: Trial | None = None
    learned: Callable[[], Awaitable[Mapping[str, Any]]] | None = None
    installed: Place | None = None
    in_directory: bool = False
    output_help: str = "Write it there instead of showing it."


async def tried(output: Output, balancing: Balancing, cluster: ClusterFile, site: Site) -> None:
    """Return when the consumer accepts what the output renders; it reads it in a directory that is gone afterwards.

    Raises:
        Rejected: it does not, in its own words; or what rendering raises.
        Unavailable: it is not installed here, or did not answer in time.
    """
    if output.check is None:
        return
    with tempfile.TemporaryDirectory(prefix=f"muster-{output.word}-") as made:
        directory = Path(made)
        there = replace(site, place=directory, run=directory if output.check.scratch_run else site.run)
        documents = output.rendered(balancing, cluster, there)
        for document in documents:
            make_directory((directory / document.name).parent)
            write_atomically(directory / document.name, document.text, mode=document.mode)
        await output.check.asked(directory, documents)
