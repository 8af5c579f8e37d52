"""The cluster file's text with a member more or less: comments, order and quoting stay as the administrator wrote them."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from muster.kernel.errors import Conflict, Misconfigured, NotFound
from muster.kernel.names import FQDN, host_or_address


def with_member(text: str, *, name: str, address: str, number: int, kind: str) -> str:
    """Return the text with the member behind the others.

    Raises:
        Rejected: the name or the address is none.
        Conflict: a member has that name, address or number; nothing is returned.
        Misconfigured: the text is no cluster file.
    """
    name, address = str(FQDN.parse(name)), host_or_address(address)
    content, members = _read(text)
    for member in members:
        for key, value in (("name", name), ("address", address), ("id", number)):
            if str(member.get(key)).lower() == str(value).lower():
                raise Conflict(f"Member {member.get('name')} has {key} {value} already; nothing was changed")
    added = CommentedMap({"id": number, "name": name, "address": address})
    if kind != "muster":
        added["kind"] = kind
    if members and members[-1].fa.flow_style():
        added.fa.set_flow_style()
    members.append(added)
    return _written(content, text)


def without_member(text: str, name: str) -> str:
    """Return the text without the member.

    Raises:
        NotFound: it has no such member.
        Misconfigured: the text is no cluster file.
    """
    content, members = _read(text)
    for index, member in enumerate(members):
        if str(member.get("name")).lower() == name.lower():
            del members[index]
            return _written(content, text)
    raise NotFound(f"{name} does not stand in the cluster file")


def _read(text: str) -> tuple[Any, CommentedSeq]:
    try:
        content = _yaml().load(text)
    except YAMLError as e:
        raise Misconfigured(f"The cluster file cannot be read: {str(e).splitlines()[0]}") from e
    members = content.get("members") if isinstance(content, dict) else None
    if not isinstance(members, CommentedSeq) or not all(isinstance(m, CommentedMap) for m in members):
        raise Misconfigured("The cluster file has no list of members")
    return content, members


def _written(content: Any, before: str) -> str:
    yaml = _yaml()
    # As wide as it was: lines are not folded that the administrator did not fold.
    yaml.width = max(4096, *(len(line) for line in before.splitlines()))
    indented = re.search(r"^members:[^\n]*\n(?:\s*#[^\n]*\n)*\s+-", before, re.MULTILINE) is not None
    yaml.indent(mapping=2, sequence=4 if indented else 2, offset=2 if indented else 0)
    out = io.StringIO()
    yaml.dump(content, out)
    return out.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    return yaml
