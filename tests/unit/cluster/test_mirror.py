from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.cluster.mirror import Mirror, Mirrored

IMAGES: dict[str, Any] = {"kind": "container", "url": "https://registry.test", "upstream": "library/alpine"}


@pytest.mark.parametrize("upstream", ["a", "library/alpine", "a.b/c_d/e__f/g---h", "0/1"])
def test_a_repository_of_a_registry_has_a_name_there(upstream: str) -> None:
    assert Mirrored.model_validate({**IMAGES, "upstream": upstream}).upstream == upstream


@pytest.mark.parametrize(
    "upstream",
    ["", "/a", "a/", "a//b", "A", "a..b", "a___b", "a/../b", "-a", "a-", "a?b", "a\n", "a" * 256, "a:b", "a%2fb"],
)
def test_what_is_none_is_refused(upstream: str) -> None:
    with pytest.raises(ValidationError):
        Mirrored.model_validate({**IMAGES, "upstream": upstream})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"upstream": None}, "upstream is named for container"),
        ({"mirror_list": "https://registry.test/list", "url": None}, "no lists of mirrors"),
        ({"user": "me"}, "go together"), ({"password_file": "/p"}, "go together"),
        ({"user": "me:too", "password_file": "/p"}, "user"), ({"user": "me\n", "password_file": "/p"}, "user"),
        ({"tags": []}, "tags"), ({"tags": ["a b"]}, "tags"), ({"tags": ["!"]}, "tags"), ({"tags": ["!!a"]}, "tags"),
        ({"tags": ["a!"]}, "tags"), ({"tags": ["[a]"]}, "tags"), ({"tags": ["a" * 129]}, "tags"),
        ({"suites": ["s"]}, "suites"),
        ({"kind": "yum"}, "upstream is named for container"),
        ({"kind": "yum", "upstream": None, "tags": ["*"]}, "tags and user are of container"),
        ({"kind": "file", "upstream": None, "user": "me", "password_file": "/p"}, "tags and user are of container"),
    ],
)  # fmt: skip
def test_half_a_registry_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Mirrored.model_validate({**IMAGES, **more})


@pytest.mark.parametrize("word", ["a..b", "a-.b", "a___b", "x._y"])
def test_what_clients_cannot_write_in_an_images_name_is_refused_for_images_alone(word: str) -> None:
    with pytest.raises(ValidationError, match="cannot stand in the name of an image"):
        Mirror.model_validate({"repositories": {word: IMAGES}})
    with pytest.raises(ValidationError, match="cannot stand in the name of an image"):
        Mirror.model_validate({"repositories": {"a": IMAGES}, "environments": [word]})
    assert Mirror.model_validate({"repositories": {word: {"kind": "yum", "url": "http://a.test"}}}).repositories


def test_sources_are_of_deb() -> None:
    assert Mirrored.model_validate({"kind": "deb", "url": "http://a.test", "suites": ["s"], "sources": True}).sources
    with pytest.raises(ValidationError, match="sources are of deb"):
        Mirrored.model_validate({"kind": "yum", "url": "http://a.test", "sources": True})
