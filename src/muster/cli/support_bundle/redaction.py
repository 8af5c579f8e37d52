"""Secrets taken out of texts that leave the site, by what they look like and by what the settings say they are.

Every pattern is bounded, and nothing is looked at twice: a log of many megabytes takes as long as its length says. Where it
is not sure, something harmless is hidden rather than something secret shown.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import yaml

HIDDEN = "***"

# What is shorter stands in too many other words.
_SHORTEST_KNOWN = 4
_SHORTEST_CODED = 6
_URL_SAFE = str.maketrans("+/", "-_")
_LONGEST_KEY = 200
_DEEPEST = 100

_WORDS = (
    r"passw(?:or)?ds?|passphrases?|passwd|secrets?|tokens?|api[_-]?keys?|private[_-]?keys?|auth[_-]?keys?|preshared[_-]?keys?|"
    r"secret[_-]?(?:access[_-]?)?keys?|session[_-]?ids?|jsessionid|pin[_-]value"
)
_SHORT_WORDS = r"(?<![A-Za-z])(?:pin|pwd|pass|otp|psk)"
_KEY = re.compile(
    rf"(?:.*[^a-z])?(?:{_WORDS}|pin|pwd|pass|otp|psk|(?:set-)?cookies?|(?:proxy-)?authorization)\Z",
    re.IGNORECASE | re.DOTALL,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Between a name and its value, in a line, JSON, an escaped JSON, Ruby, XML and a query.
_BETWEEN = r"[\"'\\\]]{0,3}[ \t]{0,3}(?::|=>?|>|%3[dD])[ \t]{0,3}"
_QUOTED = (
    r"\\\"(?:[^\"\\\r\n]|\\[^\"\r\n]){0,4096}(?:\\\")?|\"(?:[^\"\\\r\n]|\\.){0,4096}\"?|'(?:[^'\\\r\n]|\\.){0,4096}'?"
)
_OPEN = r"[^\s,;&\"'<>)}\]]{1,4096}"
_NOTHING = frozenset({HIDDEN, "", "null", "none", "nil", "true", "false", "~"})

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")

# Nobody ends a sentence of a comment for us, and a passphrase has blanks.
_COMMENT = re.compile(
    rf"((?<![^\s])#[^\r\n]{{0,400}}?(?:{_WORDS}|{_SHORT_WORDS}){_BETWEEN})([^\s][^\r\n]{{0,8192}})", re.IGNORECASE
)

# A pattern's first group stays, its last is hidden; one without a group is hidden whole.
_PATTERNS: tuple[re.Pattern[str], ...] = (
    # Headers: a line of its own, or a value in quotes.
    re.compile(
        r"(\b(?:(?:proxy-)?authorization|(?:set-)?cookie2?|x-[a-z-]{0,40}(?:token|key|secret|auth))"
        rf"(?:{_BETWEEN}|[ \t]{{1,4}}(?=[\"'\\])))({_QUOTED}|[^\s][^\r\n]{{0,8192}})",
        re.IGNORECASE,
    ),
    re.compile(r"(\b(?:bearer|negotiate)[ \t]{1,4})([A-Za-z0-9+/=._~-]{6,8192})", re.IGNORECASE),
    # Not the word: Basic Constraints, basic authentication.
    re.compile(r"(\b[Bb](?:asic|ASIC)[ \t]{1,4})(?=.[A-Za-z]{0,64}[0-9+/=A-Z])([A-Za-z0-9+/=]{6,8192})"),
    # URLs: of USER:PASSWORD@ the password, which may hold slashes; what is a port is none. A token alone in front of @.
    re.compile(r"(://[^\s:/@\"'<>]{0,256}:)(?![0-9]{1,5}(?:[/?#,;\s\"']|\Z))([^\s\"'<>]{1,512})(?=@)"),
    re.compile(r"(https?://)([^\s:/@\"'<>]{1,256})(?=@)", re.IGNORECASE),
    re.compile(rf"((?:{_WORDS}|{_SHORT_WORDS}){_BETWEEN})({_QUOTED}|{_OPEN})", re.IGNORECASE),
    # HAProxy's userlists and statistics, keepalived, options of commands.
    re.compile(
        r"^([ \t]{0,40}(?:user[ \t]{1,4}[^\s]{1,256}[ \t]{1,4})?(?:insecure-)?password[ \t]{1,4})([^\s]{1,1024})",
        re.IGNORECASE | re.MULTILINE,
    ),
    re.compile(r"(\bstats[ \t]{1,4}auth[ \t]{1,4}[^\s:]{1,256}:)([^\s]{1,1024})", re.IGNORECASE),
    re.compile(r"(\bauth_pass[ \t]{1,4})([^\s]{1,1024})", re.IGNORECASE),
    re.compile(
        r"(--[a-z-]{0,40}(?:password|passphrase|token|secret|pin)[ \t]{1,4})(?!-)([^\s]{1,1024})", re.IGNORECASE
    ),
    re.compile(r"((?<![^\s])(?:-u|--user)[ \t=]{1,4}[^\s:]{1,256}:)([^\s]{1,1024})"),
    re.compile(
        r"(\b(?:ipmitool\b[^\r\n]{0,400}?[ \t\"']-P|sshpass[\"']?,?[ \t]{1,4}[\"']?-p)[\"']?,?[ \t]{0,4})"
        rf"({_QUOTED}|[^\s]{{1,1024}})"
    ),
    # A list in which the value follows its name: options of a command, mostly.
    re.compile(
        rf"([\"'](?:-{{1,2}}[a-z-]{{0,40}})?(?:{_WORDS})[\"'][ \t]{{0,3}},[ \t]{{0,3}})({_QUOTED})", re.IGNORECASE
    ),
    # Keys of BIND and dhcpd, and as nsupdate and dig are told them.
    re.compile(r"(\bsecret[ \t]{1,8})(\"[^\"\r\n]{1,1024}\"|[^\s;\"]{1,1024})(?=[ \t]{0,8};)", re.IGNORECASE),
    re.compile(
        r"(\b(?:nsupdate|dig)\b[^\r\n]{0,400}?[ \t\"']-y[\"']?,?[ \t]{0,4}[\"']?(?:[a-z0-9-]{1,40}:)?[^\s:\"']{1,255}:)"
        r"([A-Za-z0-9+/=]{1,1024})(?=[\s\"',]|\Z)",
        re.IGNORECASE,
    ),
    re.compile(r"(\bkey[ \t]{1,8}hmac-[a-z0-9-]{1,20}:[^\s:]{1,255}[ \t]{1,8})([A-Za-z0-9+/=]{1,1024})", re.IGNORECASE),
    # Tokens and hashes that say themselves what they are.
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,4096}(?:\.[A-Za-z0-9_-]{0,4096})?"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,255}"),
    # A whole line of a key whose lines came one by one; a digest in hexadecimal is as long.
    re.compile(r"^(?=[0-9a-f]{0,63}[A-Zg-z+/])[A-Za-z0-9+/]{64}$", re.MULTILINE),
    re.compile(r"\$(?:[1567y]|2[aby]|argon2id?)\$[A-Za-z0-9./$,=+-]{20,512}"),
)


def is_secret(key: str) -> bool:
    """Whether what stands under this key is a secret; a key that ends in ``_file`` has the name of a file."""
    return len(key) <= _LONGEST_KEY and _KEY.match(_CAMEL.sub("_", key)) is not None


@dataclass
class Redaction:
    """Takes secrets out, and counts them.

    Attributes:
        known: values that are secret wherever they stand.
        count: how many were hidden so far.
    """

    known: tuple[str, ...] = ()
    count: int = 0
    _forms: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        forms = {form for secret in self.known if len(secret) >= _SHORTEST_KNOWN for form in _forms_of(secret)}
        # What is part of another one would leave the rest of that.
        self._forms = tuple(sorted(forms, key=lambda f: (-len(f), f)))

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        text = self._without_keys(text)
        for form in self._forms:
            self.count += text.count(form)
            text = text.replace(form, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(self._hide, text)
        return text

    def comments(self, text: str) -> str:
        """Return a settings file's text without what its comments say behind a secret's name."""
        return _COMMENT.sub(self._hide, text)

    def value(self, content: Any, depth: int = 0) -> Any:
        """Return what JSON may hold without its secrets; what stands under a secret's name is one."""
        if depth > _DEEPEST:
            return HIDDEN
        if isinstance(content, Mapping):
            return {
                self.text(str(k)): self._hidden(v, depth) if is_secret(str(k)) else self.value(v, depth + 1)
                for k, v in content.items()
            }
        if isinstance(content, list | tuple | set | frozenset):
            return [self.value(part, depth + 1) for part in content]
        if content is None or isinstance(content, bool | int | float):
            return content
        return self.text(str(content))

    def _hidden(self, content: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            return HIDDEN
        if isinstance(content, Mapping):
            return {self.text(str(k)): self._hidden(v, depth + 1) for k, v in content.items()}
        if isinstance(content, list | tuple | set | frozenset):
            return [self._hidden(part, depth + 1) for part in content]
        if content is None or isinstance(content, bool) or str(content) in ("", HIDDEN):
            return content
        self.count += 1
        return HIDDEN

    def _without_keys(self, text: str) -> str:
        """Take private keys out. One that was cut off ends with the text, or began before it."""
        out, at = [], 0
        while (begin := _BEGIN.search(text, at)) is not None:
            before = self._without_end(text[at : begin.start()])
            end = _END.search(text, begin.end())
            out += [before, HIDDEN]
            self.count += 1
            at = end.end() if end is not None else len(text)
        return "".join([*out, self._without_end(text[at:])])

    def _without_end(self, text: str) -> str:
        ends = list(_END.finditer(text))
        if not ends:
            return text
        self.count += 1
        return HIDDEN + text[ends[-1].end() :]

    def _hide(self, found: re.Match[str]) -> str:
        kept, said = (found[1], found[2]) if found.re.groups else ("", found[0])
        bare = said.strip("\\\"'")
        if bare.lower() in _NOTHING:
            return found[0]
        self.count += 1
        quote_before = said[: len(said) - len(said.lstrip("\\\"'"))]
        quote_after = said[len(said.rstrip("\\\"'")) :] if quote_before else ""
        return f"{kept}{quote_before}{HIDDEN}{quote_after}"


def _forms_of(secret: str) -> Iterator[str]:
    """Yield how a secret is written: as it is, in a URL, in a form, in JSON, and in base64, also as part of more."""
    yield from (secret, quote(secret, safe=""), quote(secret), quote_plus(secret))
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    raw = secret.encode("utf-8", "replace")
    for before in range(3) if len(raw) >= _SHORTEST_CODED else ():
        # Of the first and the last letter a part may be of what stands beside it.
        coded = base64.b64encode(bytes(before) + raw)[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6].decode()
        yield from (coded, coded.translate(_URL_SAFE))


def of_settings(
    text: str, redaction: Redaction, names: Iterable[str], shown: Mapping[tuple[str, ...], Callable[[str], str]]
) -> str:
    """Return a settings file's text without its secrets; every other byte stays, comments and lines included.

    Args:
        text: the file's.
        redaction: what counts, and goes over the rest.
        names: keys whose values are secret, beside those that sound so.
        shown: what stands in place of the value at such a place.

    Raises:
        ValueError: it is no YAML, so that nobody knows what in it is whose value.
    """
    named = frozenset(names)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        spans = dict(_spans(root, (), named, shown, set())) if root is not None else {}
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError("it is no YAML") from e
    for (start, end), instead in sorted(_outer(spans).items(), reverse=True):
        was = text[start:end]
        text = (
            text[:start] + json.dumps(instead, ensure_ascii=False) + ("\n" if was.endswith("\n") else "") + text[end:]
        )
        redaction.count += 1
    return redaction.text(redaction.comments(text))


def _outer(spans: Mapping[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    """Return those that lie in no other one: an alias may make a secret of what holds one."""
    found: dict[tuple[int, int], str] = {}
    end = 0
    for span in sorted(spans, key=lambda s: (s[0], -s[1])):
        if span[1] > end:
            found[span] = spans[span]
            end = span[1]
    return found


def _spans(
    node: yaml.Node,
    place: tuple[str, ...],
    names: frozenset[str],
    shown: Mapping[tuple[str, ...], Callable[[str], str]],
    seen: set[int],
) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield where secrets begin and end, and what stands there instead."""
    # An alias is the node that it stands for.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            yield from _spans(part, place, names, shown, seen)
        return
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
        here = (*place, name)
        if here in shown and isinstance(value, yaml.ScalarNode):
            if (instead := shown[here](value.value)) != value.value:
                yield (value.start_mark.index, value.end_mark.index), instead
        elif (name in names or is_secret(name)) and str(value.value) not in _NOTHING:
            yield (value.start_mark.index, value.end_mark.index), HIDDEN
        else:
            yield from _spans(value, here, names, shown, seen)
