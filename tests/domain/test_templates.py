"""Chat templates are foreign code: sandboxed, bounded, and otherwise as transformers runs them."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from overnight.domain.errors import DataError
from overnight.domain.rows import Message
from overnight.domain.templates import ChatTemplate

ASKED = [Message("user", "q")]

BOMBS = {
    "10^10 turns": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "10^9 at once": "{% for i in range(1000000000) %}{% endfor %}",
    "calls that double": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless calls": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "text by product": "{{ 'x' * 1000000000 }}",
    "text by product, the other way": "{{ 1000000000 * 'x' }}",
    "text by sum": "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "text by format": "{{ '%1000000000d' % 1 }}",
    "power of powers": "{{ 10 ** (10 ** 10) }}",
    "much text": "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_overdoes_is_refused_soon(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(DataError) as caught:
        ChatTemplate(BOMBS[name], special_tokens={}).render(ASKED)
    assert time.monotonic() - begun < 20
    assert caught.value.code in ("template_too_costly", "template_refused")


ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "function": "{{ strftime_now.__self__.__class__ }}",
    "namespace": "{% set n = namespace(__init__=1) %}",
    "mutation": "{{ messages.append(1) }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(name: str) -> None:
    with suppress(DataError):
        assert ChatTemplate(ESCAPES[name], special_tokens={}).render(ASKED) == ""


@pytest.mark.parametrize("source", ["{% for", "{% generation %}", "{% unknown %}", "{{ 1 | nofilter }}"])
def test_a_broken_template_is_told_at_once(source: str) -> None:
    with pytest.raises(DataError) as caught:
        ChatTemplate(source, special_tokens={})
    assert caught.value.code == "template_broken"


def test_a_long_conversation_has_room() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", special_tokens={})
    assert template.render([Message("user", "x")] * 20_000) == "x" * 20_000


def test_what_a_template_says_when_it_refuses_is_kept_printable() -> None:
    with pytest.raises(DataError) as caught:
        ChatTemplate("{{ raise_exception('no\x1b[31m\nway') }}", special_tokens={}).render(ASKED)
    assert caught.value.found is not None
    assert caught.value.found.isprintable()
