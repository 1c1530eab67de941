"""Where in a rendered conversation each message's content stands; found by place, never by looking for marker strings.

The conversation is rendered once as it is, and once with each content between two characters that occur nowhere else.
Where the two differ in nothing but those marks, the marks tell the places. Templates that cut outer blanks away are
followed by setting the marks inside them; templates that change more are followed by rendering the conversation up to
each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overnight.domain.errors import DataError
from overnight.domain.row_shapes import Message
from overnight.domain.templates import ChatTemplate


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, in characters."""

    start: int  # of an answer: where its turn is opened
    end: int
    said_at: int | None = None  # where the content itself begins, where that is later

    @property
    def said(self) -> int:
        """Return where the content itself begins."""
        return self.start if self.said_at is None else self.said_at


@dataclass(frozen=True, slots=True)
class _Marks:
    starts: dict[int, int]  # by message
    ends: dict[int, int]


class PlaceFinder:
    """Finds contents in what one template writes."""

    def __init__(self, template: ChatTemplate) -> None:
        """Learn how the template opens an answer. Raises DataError where it does not work at all."""
        self._template = template
        self._trims = False
        asked = [Message("user", "a")]
        template.render([*asked, Message("assistant", "b")])
        plain, opened = template.render(asked), template.render(asked, add_generation_prompt=True)
        self.turn = opened[len(plain) :] if opened.startswith(plain) else ""

    def find(self, messages: Sequence[Message], text: str) -> list[Span]:
        """Return where each message's content stands in the rendered text; an answer begins where its turn opens."""
        mark = _free_character(text)
        for trims in (self._trims, not self._trims):
            marked = self._template.render(
                [_marked(message, mark, index, trims) for index, message in enumerate(messages)]
            )
            marks = _read_marks(marked, mark, text)
            places = self._open_turns(text, marks, messages) if marks is not None else None
            if places is not None:
                self._trims = trims
                return places
        return _places_by_prefix(self._template, messages, text)

    def _open_turns(self, text: str, marks: _Marks, messages: Sequence[Message]) -> list[Span] | None:
        """Let answers begin right after the words that open the assistant's turn; None where one is not found."""
        places: list[Span] = []
        for index, message in enumerate(messages):
            start, end = marks.starts.get(index), marks.ends.get(index)
            if message.role != "assistant" or not message.content.strip():
                if (start is None) != (end is None):
                    return None  # only a part of it is written: what it says cannot be told from the template
                places.append(Span(start, end) if start is not None and end is not None else Span(0, 0))
                continue
            if end is None:
                return None
            said = start if start is not None else end
            # From the last thing said before, up to this content, stands only the template's own text.
            before = max((other for other in marks.ends.values() if other <= said and other != end), default=0)
            opened = text.find(self.turn, before, said) if self.turn else -1
            if opened < 0 and start is None:
                return None
            begin = opened + len(self.turn) if opened >= 0 else _before_blanks(text, said, before)
            places.append(Span(begin, end, said_at=said))
        return places


def _before_blanks(text: str, position: int, border: int) -> int:
    """Return where the blanks before a position begin: where a template does not say it, the model speaks them."""
    while position > border and text[position - 1].isspace():
        position -= 1
    return position


def _free_character(text: str) -> str:
    """Return a private-use character that does not occur."""
    return next(char for number in range(0x10F800, 0x10FFFD) if (char := chr(number)) not in text)


def _marked(message: Message, mark: str, index: int, trims: bool) -> Message:
    """Put a content between marks; with ``trims`` inside its outer blanks, which the template may then cut away."""
    content = message.content
    core = content.strip()
    if not core:
        return message
    if not trims:
        return Message(message.role, f"{mark}a{index}{mark}{content}{mark}z{index}{mark}")
    lead, trail = content[: len(content) - len(content.lstrip())], content[len(content.rstrip()) :]
    return Message(message.role, f"{lead}{mark}a{index}{mark}{core}{mark}z{index}{mark}{trail}")


def _read_marks(marked: str, mark: str, text: str) -> _Marks | None:
    """Return where each content stands in the text; None where the marks changed more than themselves."""
    pieces = marked.split(mark)
    if len(pieces) % 2 == 0 or "".join(pieces[::2]) != text:
        return None
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    position = len(pieces[0])
    for name, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        places = starts if name[0] == "a" else ends
        number = int(name[1:])
        if number in places:
            return None  # said twice: no telling which one is the answer
        places[number] = position
        position += len(piece)
    return _Marks(starts, ends)


def _places_by_prefix(template: ChatTemplate, messages: Sequence[Message], text: str) -> list[Span]:
    """Find answers by rendering the conversation up to each of them; for templates that change what is said."""
    spans: list[Span] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            spans.append(Span(0, 0))
            continue
        before = template.render(messages[:index], add_generation_prompt=True)
        after = template.render(messages[: index + 1])
        if not text.startswith(before) or not text.startswith(after) or len(after) <= len(before):
            raise DataError(
                "The chat template hides where an answer stands",
                found=f"message {index + 1} is not written in one piece",
                expected="a template that writes each message as it is, in order",
                fix="use a plainer chat template (chat_template.jinja in the base model's folder)",
                code="template_refused",
            )
        spans.append(Span(len(before), len(after)))
    return spans
