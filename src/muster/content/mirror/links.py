"""What an answer says comes next: pages of a list, as a header ``Link`` names them.

Source: RFC 8288 §3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin

from muster.content.backend import BadGateway
from muster.content.mirror.targets import Target
from muster.kernel.errors import Rejected

_PARAMETER = (
    r"[ \t]*+;[ \t]*+([!#$&+.^`|~\w*-]*+)"
    r'(?:[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^\s",;<>]*+))?+'
)
_PARAMETERS = re.compile(_PARAMETER)
_LINK = re.compile(rf"[ \t,]*+<(?P<where>[^<>\s]{{0,4096}})>(?P<parameters>(?:{_PARAMETER})*+)[ \t]*+(?=,|\Z)")


def following(at: Target, said: Iterable[str]) -> Target | None:
    """Return the page that a ``Link`` says comes next, at the same server; None: this is the last.

    Raises:
        BadGateway: it says one that is nowhere, or in no way that can be read: a list cut short would take tags away.
    """
    for value in said:
        end = 0
        while (link := _LINK.match(value, end)) is not None:
            end = link.end()
            if _is_next(link["parameters"]):
                try:
                    # A server behind another one may call itself otherwise; it is asked where it was.
                    to = Target.of(urljoin(f"{at.base}{at.path}", link["where"]))
                except (Rejected, ValueError):
                    raise BadGateway(f"{at} says of its next page that it is nowhere") from None
                return at._replace(path=to.path)
        if "next" in value[end:].lower():
            raise BadGateway(f"{at} says of its next page where it is in a way that cannot be read")
    return None


def _is_next(parameters: str) -> bool:
    # What is said of it a second time does not count.
    relation = next((value for name, value in _PARAMETERS.findall(parameters) if name.lower() == "rel"), "")
    return "next" in relation.strip('"').lower().split()
