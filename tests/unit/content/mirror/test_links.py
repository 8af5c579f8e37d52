"""What comes next of a list, and that a list never ends where it goes on."""

from __future__ import annotations

import pytest

from muster.content.backend import BadGateway
from muster.content.mirror.links import following
from muster.content.mirror.targets import Target


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ('</p>; rel="prev", </a?last=x,y>; rel="next"', "/a?last=x,y"), ('</a>;rel="next",</z>;rel="last"', "/a"),
        ('</a>; rel="last next"', "/a"), ("</a>; REL=NEXT", "/a"), ('</a>; title="a, <b>; rel=next"; rel="prev"', None),
        ("</a> ; rel = next", "/a"), ('</a>; title="x\\"y"; rel=next', "/a"), ("</a>; rel=prev; rel=next", None),
        (",, </a>;rel=next", "/a"), ('</p>;rel=prev,</a>;rel="next"; type="x"', "/a"),
        ('</v2/x/tags/list?last=a>; rel="next"', "/v2/x/tags/list?last=a"), ("<?a=b>;rel=next", "/y?a=b"),
        ('</a>; rel="prev"', None), ("</a>", None), ("", None), ('</a>; title="rel=next"', None),
    ],
)  # fmt: skip
def test_what_comes_next(said: str, path: str | None) -> None:
    found = following(Target.of("https://r.test/y?n=1"), [said])
    assert (found.path if found else None) == path


def test_what_comes_next_is_nowhere_else() -> None:
    for said in (
        "<ftp://a/b>; rel=next", "<http://me:too@a/b>; rel=next", "<http://[/>; rel=next",
        # Where it goes on cannot be read: a list that ends here would take tags away.
        '</a b>; rel="next"', "/a; rel=next", f'</{"a" * 5000}>; rel="next"', '</p>; rel="prev", </a>; rel="next',
    ):  # fmt: skip
        with pytest.raises(BadGateway, match="next page"):
            following(Target.of("https://r.test/y"), [said])
