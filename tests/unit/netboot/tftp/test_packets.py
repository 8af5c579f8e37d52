"""What stands in a datagram (``netboot/tftp/packets.py``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.errors import Rejected
from muster.netboot.tftp import packets
from muster.netboot.tftp.packets import Ack, Data, Error, ErrorCode, Opcode, OptionsAck, Request, parsed

_words = st.binary(min_size=1, max_size=40).filter(lambda w: b"\0" not in w)
_options = st.lists(st.tuples(_words, _words | st.just(b"")), max_size=8).map(tuple)


@given(st.sampled_from([Opcode.RRQ, Opcode.WRQ]), _words, st.sampled_from(["octet", "netascii"]), _options)
def test_a_request_is_read_as_it_was_written(opcode, name, mode, options) -> None:  # type: ignore[no-untyped-def]
    asked = Request(opcode, name, mode, options)
    assert parsed(packets.request(asked)) == asked


@given(_options)
def test_an_answer_to_options_is_read_as_it_was_written(options: tuple[tuple[bytes, bytes], ...]) -> None:
    wire = packets.options_ack(options)
    if len(wire) >= 4:
        assert parsed(wire) == OptionsAck(options)


@given(st.integers(0, 65535), st.binary(max_size=600))
def test_blocks_and_their_acknowledgements_are_read_as_they_were_written(block: int, payload: bytes) -> None:
    assert parsed(packets.data_head(block) + payload) == Data(block, payload)
    assert parsed(packets.ack(block)) == Ack(block)
    # Firmware pads.
    assert parsed(packets.ack(block) + payload) == Ack(block)


@given(st.sampled_from(ErrorCode), st.text(max_size=50).filter(lambda t: "\0" not in t))
def test_an_error_is_read_as_it_was_written(code: ErrorCode, message: str) -> None:
    assert parsed(packets.error(code, message)) == Error(code, message)


def test_a_long_message_is_cut_and_a_nul_in_it_ends_nothing() -> None:
    said = parsed(packets.error(ErrorCode.UNDEFINED, "a\0b" * 1000))
    assert isinstance(said, Error)
    assert said.message.startswith("a ba b")
    assert len(said.message) == 400


@given(st.binary(max_size=3000))
def test_whatever_arrives_is_a_packet_or_is_rejected(datagram: bytes) -> None:
    try:
        packet = parsed(datagram)
    except Rejected:
        return
    assert len(datagram) >= 4
    if isinstance(packet, Request):
        assert packet.name
        assert b"\0" not in packet.name
        assert all(name for name, _ in packet.options)


@pytest.mark.parametrize(
    ("datagram", "why"),
    [
        (b"\0\1a", "shorter"),
        (b"\0\1abc", "without"),
        (b"\0\1abc\0", "without"),
        (b"\0\1abc\0octet", "without"),
        (b"\0\1\0octet\0", "without a name"),
        (b"\0\1abc\0mail\0", "mode"),
        (b"\0\x09abc\0octet\0", "number 9"),
        (b"\0\1" + b"a" * 2048 + b"\0octet\0", "more than 2048"),
        (b"\0\1a\0octet\0" + b"x\0y\0" * 33, "options"),
    ],
)
def test_what_is_no_request_is_rejected(datagram: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        parsed(datagram)


@pytest.mark.parametrize("rest", [b"", b"blksize", b"blksize\0", b"\0\0\0\0", b"\xff" * 40])
def test_what_follows_the_last_whole_option_is_not_looked_at(rest: bytes) -> None:
    datagram = b"\0\1abc\0OcTeT\0tsize\0" + b"0\0" + rest
    assert parsed(datagram) == Request(Opcode.RRQ, b"abc", "octet", ((b"tsize", b"0"),))
