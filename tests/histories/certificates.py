"""What one certname can be at a Puppet CA, whoever of its members is asked.

| operation | given | answer |
|---|---|---|
| ``submit`` | the key, and whether autosigning signs it | refused: the name has a request or a certificate |
| ``sign`` | | refused: no request waits |
| ``fetch`` | | serial and key of the live certificate, or ``none`` |
| ``revoke`` | | refused: it has no certificate |
| ``clean`` | | refused: it has no certificate; acknowledged: revoked, and the name is free again |
| ``state`` | | ``requested``, ``signed``, ``revoked`` or ``none`` |
| ``listed`` | a serial | whether it is on the revocation list that was served |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.histories.history import Call
from tests.histories.judge import Contradiction

NONE = "none"


@dataclass(frozen=True)
class Given:
    """A certificate that was given.

    Attributes:
        serial: None until somebody saw it.
    """

    key: str
    serial: int | None = None
    revoked: bool = False
    live: bool = True


@dataclass(frozen=True)
class Name:
    """One certname: the key of the request that waits, and all certificates that it ever had, the live one last.

    It has a request that waits, or a live certificate, or neither.
    """

    waiting: str | None = None
    given: tuple[Given, ...] = ()

    @property
    def live(self) -> Given | None:
        return self.given[-1] if self.given and self.given[-1].live else None

    def with_live(self, one: Given) -> Name:
        return replace(self, given=(*self.given[:-1], one))

    def with_new(self, key: str) -> Name:
        return Name(None, (*self.given, Given(key)))


@dataclass(frozen=True)
class Certificates:
    """The model; at most one live certificate a name.

    Attributes:
        list_lag_s: how old a list may be that is served. 0 while the store answers: each member asks it for the number with
            each call; a member whose store is away serves the last list it saw.
    """

    list_lag_s: float = 0.0
    start: Name = Name()
    queries: frozenset[str] = frozenset({"fetch", "state", "listed"})

    def since(self, call: Call) -> float:
        return call.begun - self.list_lag_s if call.operation == "listed" else call.begun

    def after(self, state: Name, call: Call) -> Iterable[Name]:
        found = self._refused(state, call) if call.outcome == "refused" else self._done(state, call)
        return tuple(found)

    def _refused(self, state: Name, call: Call) -> Iterator[Name]:
        possible = {
            "submit": state.waiting is not None or state.live is not None,
            "sign": state.waiting is None,
            "revoke": state.live is None,
            "clean": state.live is None,
        }
        if possible[call.operation]:
            yield state

    def _done(self, state: Name, call: Call) -> Iterator[Name]:
        live = state.live
        match call.operation:
            case "submit":
                assert isinstance(call.given, tuple)
                key, signs = call.given
                if live is None and signs:
                    yield state.with_new(key)
                elif live is None and state.waiting is None:
                    yield replace(state, waiting=key)
            case "sign":
                if state.waiting is not None:
                    yield state.with_new(state.waiting)
            case "revoke":
                if live is not None:
                    yield state.with_live(replace(live, revoked=True))
            case "clean":
                if live is not None:
                    yield state.with_live(replace(live, revoked=True, live=False))
            case "fetch":
                yield from _fetched(state, call)
            case "state":
                if _word(state) == call.answer:
                    yield state
            case "listed":
                yield from _listed(state, call)

    def fault(self, core: Sequence[Call]) -> str:
        """Name the kind that an operator fears."""
        done = [c for c in core if c.outcome == "ok" and c.operation not in self.queries]
        heard = [c for c in core if c not in done]
        revoked = any(c.operation in ("revoke", "clean") for c in done) or any(_shows_revoked(c) for c in heard)
        if revoked and any(_shows_valid(c) for c in heard):
            return "revoked and served"
        giving = [c for c in done if c.operation in ("submit", "sign")]
        fetched = [c.answer for c in heard if c.operation == "fetch" and c.answer != NONE]
        serials = set(fetched)
        # One that another has replaced was revoked on the way; so was one that is needed twice, as it came back.
        if len(fetched) > len(serials) or (len(serials) > 1 and any(_shows_valid(c) for c in heard)):
            return "revoked and served"
        if len(giving) > 1 or len(serials) > 1 or (giving and serials and not _same_key(giving, heard)):
            return "given twice"
        if any(_shows_nothing(c) for c in heard) and len(core) > 1:
            return "acknowledged and lost" if done else "seen and lost"
        return "changed by nobody" if heard else "acknowledged what cannot be"


def _fetched(state: Name, call: Call) -> Iterator[Name]:
    live = state.live
    if call.answer == NONE:
        if live is None:
            yield state
        return
    assert isinstance(call.answer, tuple)
    serial, key = call.answer
    # A certificate that was cleaned is not given out again, though its key may enrol once more.
    known = any(one.serial == serial for one in state.given[:-1])
    if live is not None and live.key == key and live.serial in (None, serial) and not known:
        yield state.with_live(replace(live, serial=serial))


def _listed(state: Name, call: Call) -> Iterator[Name]:
    known = [n for n, one in enumerate(state.given) if one.serial == call.given]
    # A serial nobody has seen yet may be that of any certificate whose serial is not known.
    for n in known or [n for n, one in enumerate(state.given) if one.serial is None]:
        one = state.given[n]
        if one.revoked is call.answer:
            named = replace(one, serial=call.given)  # type: ignore[arg-type]
            yield replace(state, given=(*state.given[:n], named, *state.given[n + 1 :]))
    if not known and call.answer is False:
        # Perhaps of one that comes later; that it is none of those there are now is not remembered.
        yield state


def _word(state: Name) -> str:
    if state.live is not None:
        return "revoked" if state.live.revoked else "signed"
    return "requested" if state.waiting is not None else NONE


def _shows_valid(call: Call) -> bool:
    return (call.operation, call.answer) in (("state", "signed"), ("listed", False))


def _shows_revoked(call: Call) -> bool:
    return (call.operation, call.answer) in (("state", "revoked"), ("listed", True))


def _shows_nothing(call: Call) -> bool:
    return call.answer == NONE or (call.outcome == "refused" and call.operation != "submit")


def _same_key(giving: Sequence[Call], heard: Sequence[Call]) -> bool:
    keys = {c.given[0] for c in giving if isinstance(c.given, tuple)}
    return keys == {c.answer[1] for c in heard if isinstance(c.answer, tuple)}


def shared_serials(calls: Iterable[Call]) -> list[Contradiction]:
    """Return every serial that two names were given; the one thing that calls about different names have in common."""
    seen: dict[int, dict[str, Call]] = defaultdict(dict)
    for call in calls:
        if call.operation == "fetch" and isinstance(call.answer, tuple):
            seen[call.answer[0]].setdefault(call.key, call)
    return [
        Contradiction(f"serial {serial:X}", f"given to {' and '.join(names)}", tuple(names.values()))
        for serial, names in sorted(seen.items())
        if len(names) > 1
    ]
