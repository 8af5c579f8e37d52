"""Every failure Muster can name.

::

    MusterError
    ├── Conflict        409  the thing exists with another value; nothing was changed
    ├── NotFound        404  there is nothing by that name
    ├── Rejected        400  the request, or what it would do, is refused by rule
    ├── Denied          403  the caller may not do this
    ├── Unavailable     503  the other side did not answer, or this member cannot serve it now; may be tried again
    ├── NotAcceptable   406  it could not be done, in a feature whose protocol has one word for that
    ├── Unsupported     501  the provider cannot do this, ever
    └── Misconfigured   500  a setting, key or certificate of ours is wrong; trying again will not help

Each is a *state*, not an event: the message is one sentence for an operator and says what was tried, on what, and what
came back. ``edge`` turns the status into a reply in one table; a provider translates its library's exceptions into
these in one private method. Anything else that reaches the edge is a bug.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class MusterError(Exception):
    """A failure with a name, a place and a sentence.

    Attributes:
        status: the HTTP status that says it.
        retryable: whether the same call may succeed later without anybody changing a setting. It does not say that
            repeating is *safe*: that is the operation's mark (``muster.policy.marks``).
        place: where somebody was asked, for the log alone; empty where the sentence says it, or nobody was.
    """

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    place: str = ""

    def __str__(self) -> str:
        return self.args[0] if self.args else type(self).__name__


class Conflict(MusterError):
    """The thing exists with another value; nothing was changed."""

    status = 409


class NotFound(MusterError):
    """There is nothing by that name."""

    status = 404


class Rejected(MusterError):
    """The request, or what it would do, is refused by rule."""

    status = 400


class Denied(MusterError):
    """The caller may not do this."""

    status = 403


class Unavailable(MusterError):
    """The other side did not answer in time; whether a change happened there is unknown."""

    status = 503
    retryable = True


class NotAcceptable(MusterError):
    """What was asked could not be done; Foreman's Puppet features have this one word for every such failure."""

    status = 406


class Unsupported(MusterError):
    """The provider cannot do this, ever."""

    status = 501


class Misconfigured(MusterError):
    """A setting, key or certificate of ours is wrong."""

    status = 500


@contextmanager
def begun_with(what: str, *kinds: type[MusterError]) -> Iterator[None]:
    """Let failures of these kinds begin with what was tried."""
    try:
        yield
    except kinds as e:
        said = type(e)(f"{what}: {e}")
        said.place = e.place
        raise said from e
