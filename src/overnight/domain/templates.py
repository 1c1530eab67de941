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
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from overnight.domain.errors import DataError
from overnight.domain.rows import Message

FROZEN_DATE = datetime.date(2024, 7, 26)
"""What templates print as today; the date that Llama's own templates fall back to."""

LOOP_LIMIT = 50_000
"""Turns of all loops and macros in one rendering, besides 1,000 a message."""

TEXT_LIMIT = 64 << 20
"""Characters that one rendering, or one operation inside it, may give."""


class _TooCostly(Exception):
    """Raised inside a rendering that goes over a limit."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox that also bounds what one operator can build."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Judge the operands, then do what the operator does."""
        for size, other in ((left, right), (right, left)):
            if operator == "*" and isinstance(size, int) and isinstance(other, str | list | tuple):
                _bound(size * len(other))
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            _bound(left.bit_length() * max(right, 0))
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _bound(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            raise _TooCostly("the template formats text with %")
        return super().call_binop(context, operator, left, right)


def _bound(size: int) -> None:
    if size > TEXT_LIMIT:
        raise _TooCostly(f"one operation makes more than {TEXT_LIMIT:,} characters")


class _Limits(jinja2.ext.Extension):
    """Counts loop turns and macro calls; takes the generation tag as plain grouping."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.left = 0

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Read ``{% generation %} ... {% endgeneration %}``."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)

    def count_turn(self) -> str:
        """Count one turn of a loop or call of a macro."""
        self.left -= 1
        if self.left < 0:
            raise _TooCostly("the template loops too often")
        return ""

    def inject(self, tree: jinja2.nodes.Template) -> None:
        """Put the counter into each loop and macro."""
        for node in tree.find_all((jinja2.nodes.For, jinja2.nodes.Macro, jinja2.nodes.CallBlock)):
            body: list[jinja2.nodes.Node] = node.body  # type: ignore[attr-defined] # all three have one
            body.insert(0, jinja2.nodes.ExprStmt(self.call_method("count_turn"), lineno=node.lineno))


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


def _refuse_underscore(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a template cannot store {name!r} on a namespace")


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if isinstance(indent, int):
        _bound(indent * 1000)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str, *, special_tokens: Mapping[str, str], today: datetime.date = FROZEN_DATE) -> None:
        """Compile; ``special_tokens``: the names a template may print (bos_token, eos_token, ...). Raises DataError."""
        self._special_tokens = dict(special_tokens)
        midnight = datetime.datetime.combine(today, datetime.time())
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Limits, jinja2.ext.loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals.update(
            raise_exception=_raise_exception, strftime_now=midnight.strftime, dict=_TemplateDict(), namespace=_Namespace
        )
        limits = environment.extensions[_Limits.identifier]
        assert isinstance(limits, _Limits)
        self._limits = limits
        try:
            tree = environment.parse(source)
            limits.inject(tree)
            code = environment.compile(tree)
            self._template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
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
        self._limits.left = LOOP_LIMIT + 1000 * len(turns)
        names = {
            **self._special_tokens,
            "messages": turns,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces: list[str] = []
        size = 0
        limit = TEXT_LIMIT + 4 * sum(len(message.content) for message in messages)
        try:
            for piece in self._template.generate(names):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise _TooCostly(f"the template writes more than {limit:,} characters")
        except _TooCostly as error:
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
