"""Chat templates: foreign code, rendered in a sandbox set up as transformers does it, with limits that it lacks.

Two things differ on purpose. The date that a template may print is frozen, so that the same rows give the same prompts
after midnight. And work is counted: a template that loops for ever, or makes text without end, is refused.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from overnight.domain.errors import DataError
from overnight.domain.rows import Message
from overnight.domain.template_sandbox import Limits, Sandbox
from overnight.domain.template_work import SOURCE_LIMIT, TooCostlyError, Work

FROZEN_DATE = datetime.date(2024, 7, 26)
"""What templates print as today; the date that Llama's own templates fall back to."""

TEXT_LIMIT = 16 << 20
"""Characters that one rendering may give, besides four times the conversation."""


class _TemplateDict:
    """What templates get as ``dict``: no access to the class itself."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        """Return dict.fromkeys."""
        return dict.fromkeys(*values)


class _Namespace(jinja2.utils.Namespace):
    """What templates get as ``namespace``: no underscore names."""

    def __init__(*values: Any, **named: Any) -> None:  # so that a name "self" can be given
        self, given = values[0], dict(*values[1:], **named)
        for name in given:
            _refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # what is in it may be in it a million times over


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template cannot store {name!r} on a namespace")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if isinstance(indent, int) and indent > 100:
        raise TooCostlyError("tojson is to indent by more than 100")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, *, special_tokens: Mapping[str, str], today: datetime.date = FROZEN_DATE) -> None:
        """Compile; ``special_tokens``: the names a template may print (bos_token, eos_token, ...). Raises DataError."""
        self._special_tokens = dict(special_tokens)
        midnight = datetime.datetime.combine(today, datetime.time())
        self._work = Work()
        environment = Sandbox(self._work, trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = environment.counted("tojson", _to_json)
        environment.globals.update(
            raise_exception=_raise_exception, strftime_now=midnight.strftime, dict=_TemplateDict(), namespace=_Namespace
        )
        limits = environment.extensions[Limits.identifier]
        assert isinstance(limits, Limits)
        try:
            if len(source) > SOURCE_LIMIT:
                raise jinja2.TemplateError(f"it has more than {SOURCE_LIMIT:,} characters")
            tree = environment.parse(source)
            limits.inject(tree)
            code = environment.compile(tree)
            self._template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
            raise DataError(
                "The chat template cannot be read",
                found=_told(error),
                expected="a Jinja template",
                fix="mend chat_template in the base model's tokenizer, or use another base model",
                code="template_broken",
            ) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the conversation as the model reads it. Raises DataError where the template refuses or overdoes."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        characters = sum(len(message.content) for message in messages)
        self._work.begin(num_messages=len(turns), num_characters=characters)
        names = {
            **self._special_tokens,
            "messages": turns,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces: list[str] = []
        size = 0
        limit = TEXT_LIMIT + 4 * characters
        try:
            for piece in self._template.generate(names):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise TooCostlyError(f"the template writes more than {limit:,} characters")
        except TooCostlyError as error:
            raise DataError(
                "The chat template does too much work",
                found=_told(error),
                expected="a template that goes once through the messages",
                fix="mend chat_template in the base model's tokenizer, or use another base model",
                code="template_too_costly",
            ) from error
        except Exception as error:  # foreign code: whatever it raises, it refused the conversation
            raise DataError(
                "The chat template refuses a conversation",
                found=_told(error),
                expected="roles in the order that the template takes",
                fix="order the roles as the model's chat template wants them",
                code="template_refused",
            ) from error
        return "".join(pieces)


def _told(error: Exception) -> str:
    text = str(error) or type(error).__name__
    cut = text if len(text) <= 200 else text[:200] + "..."
    return "".join(char if char.isprintable() else " " for char in cut)
