"""Every example of docs/protocol.md is what the code sends and takes."""

import json
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest

from blockyard.wire.frames import Decoder, encode
from blockyard.wire.messages import ToScheduler, ToWorker
from blockyard.wire.session import TRANSITIONS, SessionState

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
LINES = PAGE.splitlines()
EXAMPLES = [(text, LINES[at + 1]) for at, text in enumerate(LINES) if text.startswith('{"t"')]


def decoded(frame):
    """The message of a frame, whichever direction it is for."""
    kind = msgspec.msgpack.decode(frame[4:])["t"]
    for union in (ToScheduler, ToWorker):
        if kind in {member.__struct_config__.tag for member in union.__args__}:
            (message,) = Decoder(union).feed(frame)
            return message
    raise AssertionError(kind)


@pytest.mark.parametrize(("text", "frame"), EXAMPLES, ids=[json.loads(text)["t"] for text, _ in EXAMPLES])
def test_an_example_is_the_frame_of_its_json(text, frame):
    """Both ways: the bytes decode to it, and it encodes to the bytes."""
    message = decoded(bytes.fromhex(frame))
    assert encode(message).hex() == frame
    assert json.loads(msgspec.json.encode(message)) == json.loads(text)


def test_every_message_is_described():
    """By its tag, in bold."""
    for union in (ToScheduler, ToWorker):
        for member in union.__args__:
            assert f"**{member.__struct_config__.tag}**" in PAGE.replace("heartbeat_ack", "heartbeat_ack"), member


def test_every_field_of_a_greeting_is_described():
    """A worker in another language has nothing else to go by."""
    (hello,) = [member for member in ToScheduler.__args__ if member.__struct_config__.tag == "hello"]
    for field in msgspec.structs.fields(hello):
        assert f"| `{field.name}` |" in PAGE


def test_every_state_is_described():
    """The table of the page has the states of the code."""
    for state in {state for state, _ in TRANSITIONS} - {SessionState.OVER}:
        assert f"| {state.value} |" in PAGE


def test_the_drawn_frame_is_true():
    """The one that is taken apart byte by byte."""
    drawing = PAGE.partition("```\nWant(n=4)\n")[2].partition("```")[0]
    drawn = "".join(word for line in drawing.splitlines() for word in line[:28].split() if len(word) == 2)
    assert bytes.fromhex(drawn) == bytes.fromhex("0000000b82a174a477616e74a16e04")
    assert b64encode(b"\0\2").decode() == "AAI="
