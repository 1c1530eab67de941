r"""From a row to tokens and labels, and where each token ended up.

What is learnt is found by place, never by looking for marker strings: the conversation is rendered once as it is and
once with each content between two characters that occur nowhere else; that tells where each answer stands. Special
tokens typed inside a message are read as plain text, as ``apply_chat_template(..., sanitize_control_tokens=True)`` of
transformers does. In rows of plain text the author writes the format himself: there they count as tokens.

Every token is one of: supervised (its prediction is learnt), masked (read, not learnt), truncated (cut off at
max_length), dropped (of a row in which nothing supervised is left).
"""

from __future__ import annotations

import bisect
import datetime
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from tokenizers import AddedToken, Encoding, Tokenizer

from overnight.domain.answer_places import PlaceFinder, Span
from overnight.domain.errors import DataError
from overnight.domain.rows import Chat, Completion, Message, Row, RowCode, RowProblem, Text, problem
from overnight.domain.templates import FROZEN_DATE, ChatTemplate
from overnight.domain.tokenizer_limits import panics_told

IGNORED = -100
"""The label of a token that is not learnt."""

Supervise = Literal["assistant", "completion", "all"]

_BATCH = 256
_ROLES_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """The ledger of a row or of many: total = supervised + masked + truncated + dropped."""

    total: int = 0
    supervised: int = 0
    masked: int = 0
    truncated: int = 0
    dropped: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            total=self.total + other.total,
            supervised=self.supervised + other.supervised,
            masked=self.masked + other.masked,
            truncated=self.truncated + other.truncated,
            dropped=self.dropped + other.dropped,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A row as the trainer takes it; of a dropped row both lists are empty."""

    input_ids: list[int]
    labels: list[int]  # as input_ids, IGNORED where nothing is learnt; the first is always IGNORED
    counts: TokenCounts
    num_typed_markers: int = 0  # special tokens typed inside messages, read as plain text
    num_forged: int = 0  # of those, the ones that the tokenizer makes a special token of all the same

    @property
    def is_dropped(self) -> bool:
        """Return whether nothing is left to learn."""
        return not self.input_ids


@dataclass(frozen=True, slots=True)
class _Layout:
    """A row as text, with places in characters."""

    text: str
    learnt: tuple[Span, ...]
    typed: tuple[Span, ...] = ()  # special tokens to be read as plain text
    num_typed: int = 0
    needs_end: bool = True  # the text ends with something learnt: an end token must follow
    is_plain: bool = False  # framed as the tokenizer frames plain text


@dataclass(slots=True)
class _Tokens:
    """Tokens with their places in the text."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    num_forged: int = 0

    @classmethod
    def of(cls, encoding: Encoding) -> _Tokens:
        return cls(encoding.ids, encoding.offsets)

    def straddle(self, position: int) -> bool:
        """Return whether a token begins before a position and goes over it."""
        index = bisect.bisect_left(self.offsets, (position, 0)) - 1
        return index >= 0 and self.offsets[index][0] < position < self.offsets[index][1]


class Encoder:
    """Turns rows into tokens and labels for one tokenizer; holds no torch and no file."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        chat_template: str | None,
        eos_token: str | None,
        special_tokens: Mapping[str, str] | None = None,
        today: datetime.date = FROZEN_DATE,
    ) -> None:
        """Take the pieces of a tokenizer. ``special_tokens``: bos_token, eos_token, ... as the template may print them.

        Raises DataError where there is no end token or the chat template does not work.
        """
        eos = tokenizer.token_to_id(eos_token) if eos_token else None
        if eos is None:
            raise DataError(
                "The tokenizer has no end token",
                found=f"eos_token {eos_token!r}",
                expected="an eos_token that is in the vocabulary",
                fix="set eos_token in the base model's tokenizer_config.json",
                code="no_end_token",
            )
        self.eos_id: int = eos
        names = dict(special_tokens or {})
        names.setdefault("eos_token", str(eos_token))
        self._tokenizer = _copy(tokenizer)
        with panics_told():
            self._prefix, self._suffix = _frame(self._tokenizer)
        self._tokenizer.post_processor = None  # it only adds tokens and narrows offsets
        self._as_text: Tokenizer | None = None
        added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self._special = {number: token.content for number, token in added.items() if token.special}
        words = sorted({word for word in self._special.values() if word}, key=len, reverse=True)
        self._typed = re.compile("|".join(map(re.escape, words)) or "(?!)")
        self._newline: list[int] = self._tokenizer.encode("\n", add_special_tokens=False).ids
        self._roles: dict[tuple[str, ...], str | None] = {}
        self._template: ChatTemplate | None = None
        self._places: PlaceFinder | None = None
        bos = tokenizer.token_to_id(names.get("bos_token", ""))
        self._openers: set[int] = set() if bos is None else {bos}  # special tokens that open a turn or a text
        if chat_template:
            self._template = ChatTemplate(chat_template, special_tokens=names, today=today)
            self._places = PlaceFinder(self._template)
            opening = self._tokenizer.encode(self._places.turn, add_special_tokens=False).ids
            self._openers |= {number for number in opening if number in self._special}
        self._openers.discard(self.eos_id)

    # public

    @property
    def has_template(self) -> bool:
        """Return whether conversations can be encoded."""
        return self._template is not None

    def refusal(self, row: Row) -> RowProblem | None:
        """Return why the chat template does not take a conversation with such roles; None where it does."""
        if not isinstance(row, Chat):
            return None
        return self.refusal_of_roles(tuple(message.role for message in row.messages))

    def refusal_of_roles(self, roles: tuple[str, ...]) -> RowProblem | None:
        """Return why the chat template does not take turns in this order; None where it does, or there is none."""
        if self._template is None:
            return None
        if roles not in self._roles:
            if len(self._roles) >= _ROLES_KEPT:
                self._roles.clear()
            try:
                self._template.render([Message(role, "x") for role in roles])
                self._roles[roles] = None
            except DataError as error:
                self._roles[roles] = error.found
        found = self._roles[roles]
        return None if found is None else problem(RowCode.TEMPLATE_REFUSED, f"the chat template refuses it: {found}")

    def encode(self, row: Row, *, max_length: int, supervise: Supervise) -> Encoded:
        """Return a row's tokens and labels, cut at ``max_length``. Raises DataError where the template refuses it."""
        return next(self.encode_all([row], max_length=max_length, supervise=supervise))

    def encode_all(self, rows: Iterable[Row], *, max_length: int, supervise: Supervise) -> Iterator[Encoded]:
        """Encode rows in their order, many at a time. Raises as encode does."""
        batch: list[_Layout] = []
        for row in rows:
            batch.append(self._lay_out(row, supervise))
            if len(batch) == _BATCH:
                yield from self._encode_batch(batch, max_length)
                batch = []
        yield from self._encode_batch(batch, max_length)

    # from a row to text with places

    def _lay_out(self, row: Row, supervise: Supervise) -> _Layout:
        if isinstance(row, Chat) and self._template is None and not row.needs_template:
            row = _without_template(row)
        if isinstance(row, Text):
            return _Layout(row.text, (Span(0, len(row.text)),), is_plain=True)
        if isinstance(row, Completion):
            text = row.prompt + row.completion
            start = 0 if supervise == "all" else len(row.prompt)
            return _Layout(text, (Span(start, len(text)),), is_plain=True)
        return self._lay_out_chat(row, supervise)

    def _lay_out_chat(self, row: Chat, supervise: Supervise) -> _Layout:
        if self._template is None or self._places is None:
            raise DataError(
                "The base model has no chat template, and the rows are conversations",
                found="a tokenizer without chat_template",
                expected="a chat template that says how a conversation is written",
                fix="use an instruct model as base_model, add chat_template.jinja to its folder, or write the rows as"
                " prompt + completion or text",
                code="no_chat_template",
            )
        text = self._template.render(row.messages)
        places = self._places.find(row.messages, text)
        turns = _learnt_turns(row, supervise)
        learnt = tuple(places[index] for index in turns)
        has_typed = any(self._typed.search(message.content) for message in row.messages)
        return _Layout(
            text,
            (Span(0, len(text)),) if supervise == "all" else learnt,
            typed=tuple(self._typed_in(text, places)) if has_typed else (),
            num_typed=sum(len(self._typed.findall(message.content)) for message in row.messages) if has_typed else 0,
            needs_end=bool(turns) and turns[-1] == len(row.messages) - 1,
        )

    def _typed_in(self, text: str, places: list[Span]) -> Iterator[Span]:
        """Yield where special tokens stand inside what people said."""
        for place in sorted(places, key=lambda place: place.start):
            for found in self._typed.finditer(text, place.said, place.end):
                yield Span(found.start(), found.end())

    # from text with places to tokens

    def _encode_batch(self, batch: list[_Layout], max_length: int) -> Iterator[Encoded]:
        plain = [layout.text for layout in batch if not layout.typed]
        with panics_told():
            encodings = iter(self._tokenizer.encode_batch(plain, add_special_tokens=False))
        for layout in batch:
            tokens = self._in_pieces(layout, ()) if layout.typed else _Tokens.of(next(encodings))
            cuts = [span.start for span in layout.learnt if tokens.straddle(span.start)]
            if cuts:
                tokens = self._in_pieces(layout, cuts)
            yield self._label(layout, tokens, max_length)

    def _in_pieces(self, layout: _Layout, cuts: Sequence[int]) -> _Tokens:
        """Encode a text in which some places must not be read as special tokens, and no token may go over a cut."""
        if self._as_text is None:
            self._as_text = _copy(self._tokenizer)
            self._as_text.encode_special_tokens = True
        tokens = _Tokens([], [])
        typed = {span.start: span.end for span in layout.typed}
        borders = sorted({0, len(layout.text), *cuts, *typed, *typed.values()})
        for start, end in pairwise(borders):
            known = len(tokens.ids)
            self._add_piece(self._as_text if start in typed else self._tokenizer, layout.text[start:end], start, tokens)
            if start in typed and any(number in self._special for number in tokens.ids[known:]):
                tokens.num_forged += 1
        return tokens

    def _add_piece(self, tokenizer: Tokenizer, piece: str, position: int, tokens: _Tokens) -> None:
        with panics_told():
            own = _Tokens.of(tokenizer.encode(piece, add_special_tokens=False))
        if position > 0:
            # After a newline, so that no tokenizer adds the space that it puts at the start of a text.
            with panics_told():
                longer = _Tokens.of(tokenizer.encode("\n" + piece, add_special_tokens=False))
            size = len(self._newline)
            if longer.ids[:size] == self._newline:
                own = _Tokens(longer.ids[size:], [(start - 1, end - 1) for start, end in longer.offsets[size:]])
        tokens.ids += own.ids
        tokens.offsets += [(start + position, end + position) for start, end in own.offsets]

    def _label(self, layout: _Layout, tokens: _Tokens, max_length: int) -> Encoded:
        ids, offsets = tokens.ids, tokens.offsets
        is_learnt = bytearray(len(ids))
        starts = [start for start, _ in offsets]
        is_ended = False
        for span in layout.learnt:
            first, last = bisect.bisect_left(starts, span.start), bisect.bisect_left(starts, span.end)
            if not layout.is_plain:
                last = self._end_of_turn(layout.text, ids, offsets, last)
            is_learnt[first:last] = b"\x01" * (last - first)
            is_ended = self._is_ended(layout.text, ids, offsets, last)
        if layout.is_plain:
            is_learnt = bytearray(len(self._prefix)) + is_learnt + b"\x01" * len(self._suffix)
            ids = [*self._prefix, *ids, *self._suffix]
            is_ended = ids[-1] == self.eos_id
        if layout.needs_end and not is_ended:
            ids, is_learnt = [*ids, self.eos_id], is_learnt + b"\x01"
        num_forged = tokens.num_forged + layout.num_typed - len(layout.typed)
        return replace(_cut(ids, is_learnt, max_length), num_typed_markers=layout.num_typed, num_forged=num_forged)

    def _end_of_turn(self, text: str, ids: list[int], offsets: list[tuple[int, int]], position: int) -> int:
        """Return the place after the end token that follows an answer, blanks between allowed; else ``position``."""
        for index in range(position, len(ids)):
            if ids[index] in self._special:
                return position if ids[index] in self._openers else index + 1
            start, end = offsets[index]
            if text[start:end].strip():
                break
        return position

    def _is_ended(self, text: str, ids: list[int], offsets: list[tuple[int, int]], position: int) -> bool:
        """Return whether the tokens before ``position`` close with an end token, blanks after it allowed."""
        for index in range(position - 1, -1, -1):
            if ids[index] in self._special:
                return ids[index] not in self._openers
            start, end = offsets[index]
            if text[start:end].strip():
                break
        return False


def _cut(ids: list[int], is_learnt: bytearray, max_length: int) -> Encoded:
    """Cut a row at max_length and draw up its ledger; a row with nothing left to learn is dropped whole."""
    total = len(ids)
    if total:
        is_learnt[0] = 0  # nothing comes before it, so it cannot be predicted
    kept = min(total, max_length)
    supervised = sum(is_learnt[:kept])
    if not supervised:
        return Encoded(input_ids=[], labels=[], counts=TokenCounts(total=total, dropped=total))
    labels = [number if learnt else IGNORED for number, learnt in zip(ids[:kept], is_learnt[:kept], strict=True)]
    counts = TokenCounts(total=total, supervised=supervised, masked=kept - supervised, truncated=total - kept)
    return Encoded(input_ids=ids[:kept], labels=labels, counts=counts)


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens that this tokenizer puts before and after a plain text."""
    encoding = tokenizer.encode("a", add_special_tokens=True)
    own = [index for index, is_added in enumerate(encoding.special_tokens_mask) if not is_added]
    if not own:
        return [], []
    return list(encoding.ids[: own[0]]), list(encoding.ids[own[-1] + 1 :])


def _without_template(row: Chat) -> Completion:
    """Write an instruction as plain text, for base models that know no conversations."""
    asked = "\n\n".join(message.content for message in row.messages[:-1])
    return Completion(asked + "\n\n", row.messages[-1].content, row.format)


def _learnt_turns(row: Chat, supervise: Supervise) -> list[int]:
    """Return which messages are learnt."""
    turns = [
        index
        for index, message in enumerate(row.messages)
        if message.role == "assistant" and message.is_learnt and index >= row.first_learnt
    ]
    is_completion = supervise == "completion" and row.first_learnt == 0
    return turns[-1:] if is_completion else turns
