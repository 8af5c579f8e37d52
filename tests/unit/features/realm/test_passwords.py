from __future__ import annotations

from muster.features.realm.passwords import random_password


def test_passwords_are_long_of_every_kind_and_never_the_same() -> None:
    made = {random_password().reveal() for _ in range(200)}
    assert len(made) == 200
    for one in made:
        assert len(one) == 20
        assert one.isalnum()
        assert one.isascii()
        assert any(c.islower() for c in one)
        assert any(c.isupper() for c in one)
        assert any(c.isdigit() for c in one)
