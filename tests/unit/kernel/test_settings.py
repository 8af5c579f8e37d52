from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from muster.kernel.errors import Misconfigured
from muster.kernel.settings import Document, InvalidSettings, Problem, Settings, dotted, parse, read


class Port(Settings):
    number: Annotated[int, Field(ge=1, le=65535)]
    traffic: Literal["tls", "plain"] = "tls"


class Host(Settings):
    name: str
    ports: list[Port] = []
    labels: dict[str, Port] = {}


class World(Settings):
    cluster: str
    enabled: bool | Literal["http"] = True
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]


def problems(text: str, model: type[Settings] = World) -> list[Problem]:
    with pytest.raises(InvalidSettings) as raised:
        parse(text, "cluster.yaml").parsed(model)
    return raised.value.problems


def test_a_good_file_becomes_values_of_real_types() -> None:
    world = parse("cluster: demo\nenabled: off\nhosts:\n  - {name: a, ports: [{number: 80}]}\n").parsed(World)
    assert world == World(cluster="demo", enabled=False, hosts=(Host(name="a", ports=[Port(number=80)]),))
    with pytest.raises(ValueError, match="frozen"):
        world.cluster = "other"  # type: ignore[misc]


def test_every_problem_is_said_at_once_in_order_of_lines() -> None:
    text = """\
hosts:
  - name: a
    prots: []
    ports:
      - number: 80
      - number: 70000
        traffic: tls
      - traffic: plian
  - ports: [{number: zero}]
clutser: demo
"""
    found = problems(text)
    assert [(p.line, p.where) for p in found] == [
        (1, "cluster"),
        (3, "hosts[0].prots"),
        (6, "hosts[0].ports[1].number"),
        (8, "hosts[0].ports[2].number"),
        (8, "hosts[0].ports[2].traffic"),
        (9, "hosts[1].name"),
        (9, "hosts[1].ports[0].number"),
        (10, "clutser"),
    ]
    sentences = {p.where: p.sentence for p in found}
    assert sentences["cluster"] == "is required"
    assert sentences["clutser"] == "unknown key 'clutser'; did you mean 'cluster'?"
    assert sentences["hosts[0].prots"] == "unknown key 'prots'; did you mean 'ports'?"


def test_an_unknown_key_like_no_other_is_answered_with_the_known_ones() -> None:
    (found,) = problems("cluster: x\nhosts: [{name: a}]\nqqqqqq: 1\n")
    assert found.sentence == "unknown key 'qqqqqq'; known keys: cluster, enabled, hosts"
    (found,) = problems("cluster: x\nhosts:\n - name: a\n   labels:\n     web: {number: 1, nubmer: 2}\n")
    assert (found.line, found.sentence) == (5, "unknown key 'nubmer'; did you mean 'number'?")


def test_a_value_that_is_none_of_several_kinds_is_one_problem_of_its_key() -> None:
    assert [p.where for p in problems("cluster: x\nenabled: maybe\nhosts: [{name: a}]\n")] == ["enabled"]


class Sizes(Settings):
    count: Annotated[int, Field(ge=0)] = 0
    share: float | None = None
    either: bool | int = 0
    lit: bool = False
    place: Path | None = None
    names: tuple[str, ...] = ()
    few: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("a",)
    given: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("count: yes", "is no whole number"),
        ("count: 10G", "is no whole number"),
        ("count: 1.5", "is no whole number"),
        ("count: []", "is no whole number"),
        ("share: on", "is no number"),
        ("share: 10m", "is no number"),
        ("lit: maybe", "is neither true nor false"),
        ("lit: 7", "is neither true nor false"),
        ("place: []", "is no path"),
        ("names: one", "is not a list: [A, B], or each behind a dash on a line of its own"),
        ("names: {one: 1}", "is not a list: [A, B], or each behind a dash on a line of its own"),
        ("few: []", "has too few entries: it needs 1 or more"),
        ("few: [a, b, c]", "has too many entries: 2 are the most"),
        ("given: [1]", "is not a mapping of settings"),
        ("given:", "is empty; {} has all its defaults"),
    ],
)
def test_a_value_of_another_kind_is_named_in_words_of_the_file(text: str, sentence: str) -> None:
    assert [p.sentence for p in problems(text, Sizes)] == [sentence]


def test_a_switch_that_may_also_be_a_number_stays_a_switch() -> None:
    assert parse("either: yes\nlit: yes\n").parsed(Sizes) == Sizes(either=True, lit=True)


def test_a_key_that_stands_twice_is_a_problem_wherever_it_stands() -> None:
    found = problems("cluster: a\nhosts:\n  - name: a\n    name: b\ncluster: b\n")
    assert [str(p) for p in found] == [
        "line 4: hosts[0].name: stands twice",
        "line 5: cluster: stands twice",
    ]


def test_a_key_that_stands_twice_hides_no_other_problem_and_the_last_one_counts() -> None:
    text = """\
cluster: a
hosts:
  - {nmae: b, nmae: c}
cluster: 5
hosts:
  -
    nam: e
  - {name: e, name: f}
"""
    assert [(p.line, p.where, p.sentence) for p in problems(text)] == [
        (3, "hosts[0].nmae", "stands twice"),
        (4, "cluster", "stands twice"),
        (4, "cluster", "Input should be a valid string"),
        (5, "hosts", "stands twice"),
        (7, "hosts[0].name", "is required"),
        (7, "hosts[0].nam", "unknown key 'nam'; did you mean 'name'?"),
        (8, "hosts[1].name", "stands twice"),
    ]
    with pytest.raises(InvalidSettings, match="stands twice"):
        parse("a: 1\na: 2\nb: 2026-13-01\n")


def test_a_part_of_a_document_does_not_repeat_what_stands_twice_in_the_whole() -> None:
    document = parse("cluster: a\ncluster: b\nweb: {number: 1}\n")
    assert [p.where for p in document.problems] == ["cluster"]
    assert document.below(("web",), {"number": 1}).parsed(Port) == Port(number=1)


def test_the_message_counts_and_lists_the_problems() -> None:
    with pytest.raises(InvalidSettings) as raised:
        parse("hosts: []\n", "/etc/x.yaml").parsed(World)
    first, *listed = str(raised.value).splitlines()
    assert first == "/etc/x.yaml has 2 problems:"
    assert all(line.startswith("  line 1: ") for line in listed)
    with pytest.raises(InvalidSettings, match=r"x has 1 problem:"):
        parse("a: [", "x")
    assert isinstance(raised.value, Misconfigured)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1, 2\nb: 3\n", 2), ("a: b: c\n", 1), ("a: 1\n\tb: 2\n", 2), ("a: *nothing\n", 1), ("a: 1\n---\nb: 2\n", 2)],
)
def test_what_is_not_yaml_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(InvalidSettings) as raised:
        parse(text)
    assert [p.line for p in raised.value.problems] == [line]
    assert raised.value.problems[0].sentence.startswith("not YAML: ")


@pytest.mark.parametrize("text", [b"a: \xff\xfe", b"a: \x00", "a: \ud800"])
def test_garbage_is_a_problem_of_the_whole_file_and_never_a_crash(text: str | bytes) -> None:
    with pytest.raises(InvalidSettings, match="not YAML"):
        parse(text)


# libyaml's composer ends the process by SIGSEGV here, and its scanner alone would take a minute.
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_a_file_that_nests_too_deeply_is_refused_with_its_line_before_it_is_composed(opening: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        parse("a: 1\nb:\n  " + opening * 200_000)
    assert [str(p) for p in raised.value.problems] == ["line 3: more than 100 levels deep"]


def test_a_hundred_levels_are_not_too_deep() -> None:
    assert parse("[" * 100 + "]" * 100).content


BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a0: &a0 x\n" + BOMB, "more than 50000 values, aliases counted"),
        ("a0: &a0 {k: v}\n" + BOMB.replace("[", "{<<: [").replace("]", "]}"), "more than 50000 values"),
        ("a0: &a0 x\n" + BOMB + "? *a19\n: 1\n", "more than 50000 values"),
        ("? [&a0 x, " + BOMB.replace("\n", ", ").replace("a1: &", "&") + "]\n: 1\n", "has a key that is no text"),
        ("x: &x {" + "k: 1, " * 20_000 + "}\ny: [" + "*x, " * 20_000 + "]\n", "more than 50000 values"),
        ("a: &a [*a]\n", "more than 100 levels deep, aliases followed"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000)),
            "levels deep, aliases followed",
        ),
        ("a: " + "1:" * 300_000 + "1\n", "a: is a number of more than 100 characters"),
        ("1" * 500 + ": a\n", "is a number of more than 100 characters"),
        ("a: " + "1:" * 60_000 + "1.5\n", "a: is a number of more than 100 characters"),
    ],
)
def test_a_small_file_cannot_take_much_time_or_memory(text: str, sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        parse(text)


@pytest.mark.parametrize("value", ["!!timestamp x", "!!bool x", "!!int ''", "!!float ''", "!!int x", "2026-13-01"])
def test_a_value_that_its_tag_does_not_fit_is_said_with_its_line(value: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        parse(f"a: 1\nb: {value}\n")
    (found,) = raised.value.problems
    assert (found.line, found.sentence[:29]) == (2, "not YAML: a value that is no ")


def test_a_key_cannot_speak_to_the_terminal() -> None:
    (found, *_) = problems('cluster: x\nhosts: [{name: a}]\n"\\e[31m": 1\n')
    assert str(found).isprintable()


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{}]",
        "!!python/object/new:os.mkdir [{}]",
        "!!python/name:os.mkdir {}",
        "!!python/object/apply:builtins.eval [\"__import__('os').mkdir({!r})\"]",
        "!!python/module:os {}",
        "!custom {}",
    ],
)
def test_a_tag_never_runs_code(tag: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="not YAML"):
        parse(f"a: {tag.format(str(tmp_path / 'owned'))}\n")
    assert not (tmp_path / "owned").exists()


@given(st.text(st.sampled_from("ab:-[]{}\n \"'&*!|>#%@?,1~"), max_size=40))
def test_any_text_is_a_document_or_invalid_settings(text: str) -> None:
    try:
        document = parse(text)
    except InvalidSettings:
        return
    assert isinstance(document, Document)


@pytest.mark.parametrize("key", ["yes", "5", "null", "1.5", "2026-01-01", "~", "? [a, b]\n", "<<"])
def test_a_key_that_is_no_text_is_a_problem_like_any_other(key: str) -> None:
    for text in (f"{key}: 1\n", f"cluster: x\nhosts:\n  - name: a\n    labels:\n      {key}: {{number: 0}}\n"):
        with pytest.raises(InvalidSettings):
            parse(text).parsed(World)


def test_an_empty_file_has_no_settings_and_its_problems_stand_in_line_1() -> None:
    assert parse("").content == {}
    assert parse("# nothing\n").content == {}
    assert [p.line for p in problems("")] == [1, 1]


def test_a_part_of_a_document_still_knows_its_lines() -> None:
    document = parse("features:\n  web:\n\n    number: x\n")
    part = document.below(("features", "web"), {"number": "x", "nmber": 1})
    with pytest.raises(InvalidSettings) as raised:
        part.parsed(Port)
    assert [(p.line, p.where) for p in raised.value.problems] == [
        (2, "features.web.nmber"),
        (4, "features.web.number"),
    ]


def test_a_place_that_is_not_in_the_file_has_the_line_of_what_is_above_it() -> None:
    document = parse("a: 1\nb:\n  c:\n    - d\n")
    assert document.line_of(("b", "c", 0)) == 4
    assert document.line_of(("b", "c", 7)) == 3
    assert document.line_of(("nowhere",)) == 1


def test_a_place_is_written_with_dots_and_brackets() -> None:
    assert dotted(("members", 0, "name")) == "members[0].name"
    assert dotted(()) == ""
    assert str(Problem(0, "", "is wrong")) == "is wrong"
    assert Problem(3, "a", "is wrong").as_json() == {"line": 3, "where": "a", "sentence": "is wrong"}


def test_a_file_that_cannot_be_read_or_is_too_large_is_misconfigured(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"Reading settings file .* failed: No such file"):
        read(tmp_path / "none.yaml")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(Misconfigured, match="larger than"):
        read(big)
    good: Any = tmp_path / "good.yaml"
    good.write_text("a: 1\n")
    assert read(good).content == {"a": 1}
