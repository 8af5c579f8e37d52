from __future__ import annotations

import io
import json
import pickle
import traceback

import pytest
from pydantic import TypeAdapter, ValidationError

from muster.kernel import log
from muster.kernel.rings import LogRings
from muster.kernel.secrets import Secret
from muster.kernel.settings import InvalidSettings, Settings, parse

WORD = "hunter2-never-shown"


class WithSecret(Settings):
    password: Secret
    port: int = 1


def test_a_secret_shows_itself_in_no_text() -> None:
    secret = Secret(WORD)
    texts = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r}",
        f"{secret:>40}",
        f"{secret!s}",
        "{} {!r}".format(secret, secret),  # noqa: UP032 - the method, not the literal
    ]
    assert all("***" in t and WORD not in t for t in texts)
    assert WORD not in repr({"a": [secret]})
    assert secret.reveal() == WORD


def test_a_secret_is_not_pickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret(WORD), protocol)


def test_a_secret_has_no_dictionary_and_no_json() -> None:
    assert not hasattr(Secret(WORD), "__dict__")
    with pytest.raises(TypeError):
        json.dumps(Secret(WORD))


def test_settings_with_a_secret_are_dumped_without_it() -> None:
    settings = WithSecret.model_validate({"password": WORD})
    assert settings.password.reveal() == WORD
    assert settings.model_dump() == {"password": "***", "port": 1}
    assert settings.model_dump(mode="json") == {"password": "***", "port": 1}
    assert WORD not in settings.model_dump_json() + repr(settings) + str(settings)
    assert TypeAdapter(list[Secret]).dump_python([Secret(WORD)]) == ["***"]


def test_a_settings_problem_beside_a_secret_does_not_repeat_it() -> None:
    text = f"password: {WORD}\nport: x\nprot: 2\n"
    with pytest.raises(InvalidSettings) as raised:
        parse(text).parsed(WithSecret)
    shown = "".join(traceback.format_exception(raised.value))
    assert WORD not in shown
    assert [p.line for p in raised.value.problems] == [2, 3]
    assert "did you mean 'port'?" in str(raised.value.problems[1])


def test_a_secret_must_be_a_text_and_not_empty() -> None:
    for wrong in ("", 5, None, ["x"]):
        with pytest.raises(ValidationError):
            WithSecret.model_validate({"password": wrong})
    assert WithSecret(password=Secret(WORD)).password.reveal() == WORD


def test_a_secret_in_a_log_record_hides_itself() -> None:
    rings, stream = LogRings(), io.StringIO()
    for form in ("json", "text"):
        log.configure(rings=rings, form=form, stream=stream)
        log.logger("test").info("Opened", password=Secret(WORD), url=f"postgresql://u:{Secret(WORD)}@h")
    assert WORD not in stream.getvalue()
    assert len(rings.records()) == 2
    assert all("***" in r.message and WORD not in r.message for r in rings.records())


def test_secrets_compare_by_value_and_only_with_secrets() -> None:
    assert Secret(WORD) == Secret(WORD)
    assert hash(Secret(WORD)) == hash(Secret(WORD))
    assert Secret(WORD) != Secret(WORD + "x")
    assert Secret(WORD) != WORD
    assert hash(Secret(WORD)) != hash(WORD)
