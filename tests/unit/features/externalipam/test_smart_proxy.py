from __future__ import annotations

from muster.features.externalipam import rest
from muster.features.externalipam.providers import smart_proxy
from muster.foreman.answers import Answer


def test_what_would_be_too_much_once_it_is_read_is_not_read() -> None:
    assert smart_proxy._content(Answer(200, "[" + "[]," * rest.MOST_VALUES + "[]]")) is None
    assert smart_proxy._content(Answer(200, "[[],[]]")) == [[], []]
