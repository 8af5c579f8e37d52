"""``content.steered``: what may stand there, and what is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.cluster.steered import Steered

YUM = {"kind": "yum", "url": "https://origin.test/os", "path": "rocky9/os"}


def steered(**repositories: Any) -> Steered:
    return Steered.model_validate({"pulps": ["pulp@a", "pulp"], "repositories": repositories})


def test_each_kind_may_stand_there() -> None:
    deb = {
        "kind": "deb",
        "url": "https://origin.test",
        "path": "debian",
        "suites": ["bookworm"],
        "components": ["main"],
    }
    file = {"kind": "file", "url": "https://origin.test/isos", "path": "isos", "policy": "immediate"}
    found = steered(rocky9=YUM, debian=deb, isos=file)
    assert (found.wait_s, found.retain_versions, found.repositories["rocky9"].policy) == (300.0, 5, "on_demand")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "deb"}, "suites are named for deb"),
        ({"suites": ["stable"]}, "suites are named for deb"),
        ({"components": ["main"]}, "are of deb"),
        ({"path": "muster/rocky9"}, "where members answer"),
        ({"path": "../rocky9"}, "pattern"),
        ({"path": "rocky9/"}, "pattern"),
        ({"path": "/rocky9"}, "pattern"),
        ({"path": "a/../b"}, "pattern"),
        ({"path": "rocky9\n"}, "pattern"),
        ({"url": "https://me:word@origin.test/"}, "pattern"),
        ({"url": "file:///etc"}, "pattern"),
    ],
)
def test_what_may_not_stand_there_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        steered(rocky9={**YUM, **change})


@pytest.mark.parametrize("other", ["rocky9/os", "rocky9", "rocky9/os/appstream"])
def test_no_path_lies_within_another(other: str) -> None:
    beside = {f"x{n}": {**YUM, "path": path} for n, path in enumerate(("rocky9-a", "rocky9/os-a", "rocky9/os.b"))}
    assert len(steered(rocky9=YUM, **beside).repositories) == 4
    with pytest.raises(ValidationError, match="or lies below it"):
        steered(rocky9=YUM, **beside, other={**YUM, "path": other})


@pytest.mark.parametrize("pulps", [[], ["pulp@a", "pulp@a"], ["registry"], ["pulp@"], ["pulp@A"], ["pulp@a b"]])
def test_pulps_are_named_as_the_register_names_them(pulps: list[str]) -> None:
    with pytest.raises(ValidationError):
        Steered.model_validate({"pulps": pulps})


def test_fewer_versions_than_clients_need_are_refused() -> None:
    with pytest.raises(ValidationError):
        Steered.model_validate({"pulps": ["pulp@a"], "retain_versions": 2})
