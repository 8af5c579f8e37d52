"""The cluster file's text with a member more or less, another signer or store: every other byte stays as it was written.

The text is cut where the parser says that a member begins and ends. A YAML library that writes the whole file anew keeps
comments, but not ``---``, columns, or the indentation of other lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from muster.kernel.errors import Conflict, Misconfigured, NotFound
from muster.kernel.names import FQDN, host_or_address


def with_member(text: str, *, name: str, address: str, number: int, kind: str) -> str:
    """Return the text with the member behind the others.

    Raises:
        Rejected: the name or the address is none.
        Conflict: a member has that name, address or number; nothing is returned.
        Misconfigured: the text is no cluster file, or nests its members in a way this cannot write.
    """
    name, address = str(FQDN.parse(name)), host_or_address(address)
    page = _Page.read(text)
    for member in page.members:
        for key, value in (("name", name), ("address", address), ("id", number)):
            if _folded(member.get(key)) == _folded(value):
                raise Conflict(f"Member {member.get('name')} has {key} {value} already; nothing was changed")
    added = {"id": number, "name": name, "address": address, **({"kind": kind} if kind != "muster" else {})}
    return page.proven(page.with_one_more(added), members=[*page.members, added])


def without_member(text: str, name: str) -> str:
    """Return the text without the member; comments above it stay.

    Raises:
        NotFound: it has no such member.
        Conflict: it is the last member.
        Misconfigured: the text is no cluster file, or nests its members in a way this cannot write.
    """
    page = _Page.read(text)
    for index, member in enumerate(page.members):
        if _folded(member.get("name")) == _folded(name):
            if len(page.members) == 1:
                raise Conflict(f"{name} is the last member; a cluster has at least one")
            return page.proven(page.without(index), members=page.members[:index] + page.members[index + 1 :])
    raise NotFound(f"{name} does not stand in the cluster file")


def with_signer(text: str, name: str) -> str:
    """Return the text with another signer.

    Raises:
        Rejected: the name is none.
        Misconfigured: the text is no cluster file, or names its signer in a way this cannot write.
    """
    name = str(FQDN.parse(name))
    page = _Page.read(text)
    said = page.signer
    if said is None:
        line = f"signer: {_scalar(name)}"
        changed = f"{text}{'' if text.endswith(page.newline) else page.newline}{line}{page.newline}"
    else:
        changed = text[: said.start_mark.index] + _scalar(name) + text[said.end_mark.index :]
    return page.proven(changed, signer=name)


def with_store(text: str, url: str, password_file: str | None = None) -> str:
    """Return the text with another URL of the store, and another file that holds its password where one is given.

    Raises:
        Misconfigured: the text is no cluster file, or names its store in a way this cannot write.
    """
    page = _Page.read(text)
    said = {k: v for k, v in page.store.items() if k in ("url", "password_file")}
    if "url" not in said or not all(isinstance(v, yaml.ScalarNode) for _, v in said.values()):
        raise Misconfigured("The cluster file's store is written in a way only a person can change")
    changes = [(said["url"][1].start_mark.index, said["url"][1].end_mark.index, _scalar(url))]
    if password_file is not None and "password_file" in said:
        node = said["password_file"][1]
        changes.append((node.start_mark.index, node.end_mark.index, _scalar(password_file)))
    elif password_file is not None:
        key, value = said["url"]
        line = f"password_file: {_scalar(password_file)}"
        # Behind the line, whose comment speaks of the URL; a flow's goes on in the line.
        at = value.end_mark.index if page.store_flows else page.line_end(value.end_mark.index)
        before = ", " if page.store_flows else page.newline + " " * key.start_mark.column
        changes.append((at, at, before + line))
    for start, end, new in sorted(changes, reverse=True):
        text = text[:start] + new + text[end:]
    store = {**page.content["store"], "url": url}
    return page.proven(text, store=store if password_file is None else {**store, "password_file": password_file})


@dataclass(frozen=True)
class _Page:
    """A cluster file's text and where its members stand in it."""

    text: str
    content: dict[Any, Any]
    node: yaml.SequenceNode
    signer: yaml.Node | None
    store: Mapping[str, tuple[yaml.Node, yaml.Node]]
    store_flows: bool

    @classmethod
    def read(cls, text: str) -> _Page:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except yaml.YAMLError as e:
            raise Misconfigured(f"The cluster file cannot be read: {str(e).splitlines()[0]}") from e
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        node = next((v for k, v in pairs if k.value == "members"), None)
        if not isinstance(node, yaml.SequenceNode) or not all(isinstance(n, yaml.MappingNode) for n in node.value):
            raise Misconfigured("The cluster file has no list of members")
        store = _value(pairs, "store")
        said = {k.value: (k, v) for k, v in store.value} if isinstance(store, yaml.MappingNode) else {}
        flows = isinstance(store, yaml.MappingNode) and bool(store.flow_style)
        return cls(text, content, node, _value(pairs, "signer"), said, flows)

    @property
    def members(self) -> list[dict[str, Any]]:
        return list(self.content["members"])

    def proven(self, text: str, **changed: Any) -> str:
        """Return the text when it says what it should: aliases and the like may stand where they cannot be cut."""
        try:
            said = yaml.safe_load(text)
        except yaml.YAMLError:
            said = None
        if said != {**self.content, **changed}:
            what = "list of members" if "members" in changed else next(iter(changed))
            raise Misconfigured(f"The cluster file's {what} is written in a way only a person can change")
        return text

    def with_one_more(self, member: Mapping[str, Any]) -> str:
        items = self.node.value
        if not items:
            at = self.node.start_mark.index + 1
            return f"{self.text[:at]}{_flow(member)}{self.text[at:]}"
        last = items[-1]
        end, eol = self._end(last), self.line_end(self._end(last))
        padded = last.flow_style and self.text[last.start_mark.index + 1 : last.start_mark.index + 2] == " "
        flow = _flow(member, padded=padded)
        if self.node.flow_style:
            rest = self.text[end:eol]
            indent = self.text[self._line_start(last.start_mark.index) : last.start_mark.index]
            if indent.strip() or "]" in rest.partition("#")[0]:
                return f"{self.text[:end]}, {flow}{self.text[end:]}"
            comma = "," if rest.lstrip().startswith(",") else ""
            rest = rest.replace(",", "", 1) if comma else rest
            return f"{self.text[:end]},{rest}{self.newline}{indent}{flow}{comma}{self.text[eol:]}"
        dash = " " * self.node.start_mark.column + "-"
        inner = (
            last.start_mark.column if self._dash_line(last) == self._line_start(last.start_mark.index) else len(dash)
        )
        dash = dash.ljust(max(inner, len(dash) + 1))
        if last.flow_style:
            lines = [dash + flow]
        else:
            words = [f"{k}: {_scalar(v)}" for k, v in member.items()]
            lines = [dash + words[0], *(" " * len(dash) + w for w in words[1:])]
        return self.text[:eol] + "".join(self.newline + line for line in lines) + (self.text[eol:] or self.newline)

    def without(self, index: int) -> str:
        items = self.node.value
        this = items[index]
        start, end = this.start_mark.index, self._end(this)
        if not self.node.flow_style:
            return self._less_lines(self._dash_line(this), end)
        line, eol = self._line_start(start), self.line_end(end)
        alone = not self.text[line:start].strip() and self.text[end:eol].partition("#")[0].strip() in ("", ",")
        if alone:
            return self._less_lines(line, end)
        if index + 1 < len(items):
            return self.text[:start] + self.text[items[index + 1].start_mark.index :]
        return self.text[: self._end(items[index - 1])] + self.text[end:]

    def _less_lines(self, start: int, end: int) -> str:
        return self.text[:start] + self.text[self.line_end(end) :].removeprefix("\r").removeprefix("\n")

    @property
    def newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def line_end(self, at: int) -> int:
        end = self.text.find("\n", at)
        if end < 0:
            return len(self.text)
        return end - 1 if self.text[end - 1] == "\r" else end

    def _dash_line(self, item: yaml.Node) -> int:
        """Return where the line of the item's dash begins; the item may begin below it."""
        at = self._line_start(item.start_mark.index)
        column = self.node.start_mark.column
        while at > self.node.start_mark.index and self.text[at : at + column + 1] != " " * column + "-":
            at = self._line_start(at - 1)
        return at

    def _end(self, node: yaml.Node) -> int:
        """Return where a node's own text ends: a block's end mark stands behind the comments that follow it."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._end(last[1] if isinstance(last, tuple) else last)
        return len(self.text[: node.end_mark.index].rstrip())


def _value(pairs: list[tuple[yaml.Node, yaml.Node]], key: str) -> yaml.Node | None:
    return next((v for k, v in pairs if k.value == key), None)


def _folded(value: object) -> str:
    return str(value).lower().removesuffix(".")


def _flow(member: Mapping[str, Any], *, padded: bool = False) -> str:
    inside = ", ".join(f"{k}: {_scalar(v)}" for k, v in member.items())
    return f"{{ {inside} }}" if padded else f"{{{inside}}}"


def _scalar(value: Any) -> str:
    try:
        plain = yaml.safe_load(f"{{a: {value}}}") == {"a": value}
    except yaml.YAMLError:
        plain = False
    return str(value) if plain else json.dumps(value)
