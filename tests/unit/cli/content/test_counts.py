"""``muster content counts``: what each environment has."""

from __future__ import annotations

from pathlib import Path

from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import answered, deb, mirroring, narrow, promoted, publish, yum


def test_each_environment_says_what_it_has(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    publish(file, yum(), deb())
    promoted(file, yum(), "test")
    said = run(file, "content", "counts").stdout
    assert said.splitlines() == [
        "library: 2 repositories, 1235 packages, 5.0 GiB",
        "    debian",
        f"        {deb().digest[:12]} for 0 s, 1 package, 2.0 KiB",
        "    rocky",
        f"        {yum().digest[:12]} for 0 s, 1234 packages, 5.0 GiB",
        "test: 1 repository, 1234 packages, 5.0 GiB",
        "    rocky",
        f"        {yum().digest[:12]} for 0 s, 1234 packages, 5.0 GiB",
        "prod: nothing",
    ]
    assert narrow(said)
    library, test, prod = answered(file, "counts")["environments"]
    assert [(r["repository"], r["parts"]) for r in library["repositories"]] == [("debian", 2), ("rocky", 1)]
    assert (test["packages"], test["size_bytes"], prod["repositories"]) == (1234, 5 << 30, [])


def test_what_the_cluster_file_names_no_more_is_said_to_be_so(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    publish(file, yum())
    promoted(file, yum(), "test")
    file.write_text(file.read_text().replace("[library, test, prod]", "[library]").replace("rocky:", "other:"))
    lines = run(file, "content", "counts").stdout.splitlines()
    assert lines[1] == "    rocky (not in the cluster file any more)"
    assert lines[3] == "test (not in the cluster file any more): 1 repository, 1234 packages, 5.0 GiB"
    lines = run(file, "content", "publications").stdout.splitlines()
    assert ("rocky (not in the cluster file any more)" in lines, "other: nothing is published yet" in lines) == (
        True,
        True,
    )
