"""Everything that follows from the cluster file, as one tree with a page that says what goes where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output

PAGE = "README.md"


@dataclass(frozen=True, slots=True)
class Part:
    """One output in the tree.

    Attributes:
        documents: with their names below the output's own directory.
        why_not: why there are none; empty: there are.
        lacks: what the consumer does not do.
    """

    output: Output
    documents: tuple[Document, ...] = ()
    why_not: str = ""
    lacks: tuple[str, ...] = ()


def tree(cluster: ClusterFile, parts: Iterable[Part]) -> tuple[Document, ...]:
    """Return all documents below a directory for each output, and the page about them first."""
    listed = sorted(parts, key=lambda p: p.output.word)
    below = [replace(d, name=f"{p.output.word}/{d.name}") for p in listed for d in p.documents]
    page = "\n".join(_page(cluster, listed)) + "\n"
    return (Document(PAGE, page, ""), *below)


def _page(cluster: ClusterFile, parts: list[Part]) -> Iterator[str]:
    yield f"# What follows from the cluster file of {cluster.cluster}, for {cluster.address}"
    yield ""
    yield "Rendered by `muster render all`; it is rendered anew after each change of the cluster file, and never edited."
    yield ""
    yield "| directory | where it goes |"
    yield "|---|---|"
    for part in parts:
        if not part.why_not:
            yield f"| [{part.output.word}](#{part.output.word}) | {_cell(part.output.goes)} |"
    for part in parts:
        if part.why_not:
            continue
        yield ""
        yield f"## {part.output.word}"
        yield part.output.help
        yield ""
        for document in part.documents:
            yield f"* [{document.name}]({part.output.word}/{document.name})"
        if part.lacks:
            yield ""
            yield "What it lacks:"
            yield from (f"* {sentence}" for sentence in part.lacks)
    absent = [p for p in parts if p.why_not]
    if absent:
        yield ""
        yield "## What is not there, and why"
        yield from (f"* `{p.output.word}`: {p.why_not}" for p in absent)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
