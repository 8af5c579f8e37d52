from __future__ import annotations

import pytest

from muster.features.container_gateway import mapping
from muster.kernel.errors import Rejected


def test_images_are_listed_each_with_whether_one_has_to_log_in() -> None:
    form = b"repositories[][repository]=acme%2Ftools&repositories[][auth_required]=true"
    form += b"&repositories%5B%5D%5Brepository%5D=acme-open&repositories%5B%5D%5Bauth_required%5D=false"
    form += b"&repositories[][repository]=acme-unsaid"
    assert mapping.repositories(form) == {"acme/tools": True, "acme-open": False, "acme-unsaid": True}


def test_what_is_said_of_an_image_is_of_that_image_in_whichever_order() -> None:
    """As Rack nests it: a key that an element has already begins the next one."""
    form = b"repositories[][auth_required]=true&repositories[][repository]=closed"
    form += b"&repositories[][auth_required]=false&repositories[][repository]=open"
    assert mapping.repositories(form) == {"closed": True, "open": False}
    form = b"users[][al][][auth_required]=true&users[][al][][repository]=closed"
    form += b"&users[][bob][][auth_required]=false&users[][bob][][repository]=open"
    form += b"&users[][bob][][repository]=unsaid&users[][bob][][auth_required]=true&users[][bob][][repository]=last"
    assert mapping.granted(form, "users") == {"al": {"closed"}, "bob": {"unsaid"}}


def test_what_is_said_of_no_image_is_of_none() -> None:
    form = b"repositories[][auth_required]=false&repositories[][auth_required]=true&repositories[][repository]=closed"
    assert mapping.repositories(form) == {"closed": True}


@pytest.mark.parametrize("form", [b"", b"repositories", b"repositories[]", b"repositories[]="])
def test_an_empty_list_is_one(form: bytes) -> None:
    assert mapping.repositories(form) == {}


def test_somebody_may_read_what_one_has_to_log_in_for_and_what_is_said_of_others_is_theirs() -> None:
    form = b"users[][alice+b][][repository]=one&users[][alice+b][][auth_required]=true"
    form += b"&users[][alice+b][][repository]=two&users[][alice+b][][auth_required]=false"
    form += b"&users[][bob][]&users[][repository][][repository]=one&users[][repository][][auth_required]=True"
    assert mapping.granted(form, "users") == {"alice b": {"one"}, "bob": set(), "repository": {"one"}}


def test_hosts_without_a_uuid_are_none() -> None:
    assert mapping.uuids(b"hosts[][uuid]=a-b&hosts[][uuid]=&hosts[][uuid]=+&hosts[][uuid]=a-b") == {"a-b"}
    assert mapping.uuids(b"hosts[]") == set()


@pytest.mark.parametrize(
    "form",
    [
        b"hosts[][uuid]=x",
        b"repositories[repository]=x",
        b"repositories[][name]=x",
        b"repositories[][repository]=../x",
        b"repositories[][repository]=UPPER",
        b"repositories[][repository]=",
        b"repositories[][repository]=a%0Ab",
        b"repositories[][repository]=%ff",
    ],
)
def test_what_is_no_such_form_is_refused_whole(form: bytes) -> None:
    with pytest.raises(Rejected):
        mapping.repositories(b"repositories[][repository]=good&" + form)


@pytest.mark.parametrize("name", ["a%00b", "a%0Ab", "%7f", "%C2%85"])
def test_who_is_no_text_is_nobody_in_any_store(name: str) -> None:
    for form in (f"users[][{name}][][repository]=one", f"users[][{name}][]"):
        with pytest.raises(Rejected):
            mapping.granted(form.encode(), "users")
    with pytest.raises(Rejected):
        mapping.uuids(f"hosts[][uuid]={name}".encode())


def test_a_name_is_read_in_time_that_grows_with_its_length() -> None:
    for name in (b"[" * 100_000, b"repositories" + b"[]" * 100_000, b"repositories[][" + b"a" * 100_000):
        with pytest.raises(Rejected):
            mapping.repositories(name + b"=x")
