"""How far Pulps are is written down and read again, by another version of Muster, too."""

from __future__ import annotations

from muster.content.steered.stages import At, Stage


def test_what_is_written_down_is_read_again() -> None:
    stage = Stage("tools", 7, "d" * 64, 2, {"pulp@a": At("syncing", "r", "t", tries=1, why="so"), "pulp@b": At()})
    assert Stage.of_json(stage.as_json()) == stage


def test_what_a_newer_version_wrote_is_understood_as_far_as_it_goes() -> None:
    said = Stage("tools", 7, pulps={"pulp@a": At("staged", "r"), "pulp@b": At("ready", "r")}).as_json()
    said["pulps"]["pulp@a"]["colour"] = "red"
    said["pulps"]["pulp@b"]["phase"] = "dreaming"
    assert Stage.of_json(said).pulps == {"pulp@a": At("staged", "r"), "pulp@b": At()}
