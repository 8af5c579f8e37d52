"""The tree of everything, and its page."""

from __future__ import annotations

from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output
from muster.derived.whole import PAGE, Part, tree
from tests.unit.balancer.test_model import document

ONE = Output("one", "Render one.", lambda *_: (), goes="On each balancer | there.")
TWO = Output("two", "Render two.", lambda *_: (), goes="Nowhere else.")


def test_each_output_has_its_directory_and_the_page_says_where_it_goes_or_why_it_is_not_there() -> None:
    parts = [
        Part(TWO, why_not="The cluster file has no virtual_address"),
        Part(ONE, (Document("a.conf", "a\n", "one"), Document("lb2/b.sh", "b\n", "one", 0o755)), lacks=("It cannot.",)),
    ]
    page, *files = tree(document().parsed(ClusterFile), parts)
    assert [(d.name, d.mode) for d in files] == [("one/a.conf", 0o644), ("one/lb2/b.sh", 0o755)]
    assert page.name == PAGE
    assert "| [one](#one) | On each balancer \\| there. |" in page.text
    assert "* [lb2/b.sh](one/lb2/b.sh)" in page.text
    assert "* It cannot." in page.text
    assert "* `two`: The cluster file has no virtual_address" in page.text
    assert "[two](#two)" not in page.text
