"""Chat templates are foreign code: sandboxed, bounded, and otherwise as transformers runs them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
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
    "text by tilde": "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "text by a block": (
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}"
    ),
    "text by filter": "{{ 'x'|center(1000000000) }}",
    "text by method": "{{ 'x'.ljust(4000000000) }}",
    "text by replacing": "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
    "text by replacing, the other way": "{{ ('x' * 1000000)|replace('x', 'y' * 1000000) }}",
    "text by joining": "{{ ('y' * 1000000).join(['a'] * 60000) }}",
    "text by joining, the other way": "{{ (['a'] * 60000)|join('y' * 1000000) }}",
    "text by str.format": "{{ '{:4000000000}'.format(1) }}",
    "text by str.format, from elsewhere": "{{ '{:{}}'.format(1, 4000000000) }}",
    "text by the filter format": "{{ '%4000000000d'|format(1) }}",
    "text by indenting": "{{ 'x\ny'|indent(4000000000) }}",
    "text by tabs": "{{ ('\t' * 1000).expandtabs(100000000) }}",
    "text that the template itself holds": (
        "{% set x %}{% for i in range(49000) %}" + "x" * 100_000 + "{% endfor %}{% endset %}"
    ),
    "text of nested lists": (
        "{% set n = namespace(s=[1]) %}{% for i in range(45) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
        "{{ n.s|string|length }}"
    ),
    "the hash of nested tuples": (
        "{% set n = namespace(s=(1,)) %}{% for i in range(45) %}{% set n.s = (n.s, n.s) %}{% endfor %}{{ {n.s: 1} }}"
    ),
    "nested dictionaries": (
        "{% set n = namespace(s=1) %}{% for i in range(45) %}{% set n.s = dict(a=n.s, b=n.s) %}{% endfor %}{{ n.s }}"
    ),
    "a list of lists": "{{ [[1] * 1000000] * 1000000 }}",
    "a list filled up": "{{ [1]|batch(1000000000, 0)|list }}",
    "many slices": "{{ [1]|slice(1000000000)|list }}",
    "lists by sum": "{{ (range(4000)|map('string')|map('list')|list)|sum(start=[])|length }}",
    "a number of a thousand million digits": "{{ 1.5|round(1000000000, 'ceil') }}",
    "numbers by product": (
        "{% set n = namespace(s=9999999999) %}{% for i in range(60) %}{% set n.s = n.s * n.s %}{% endfor %}"
    ),
    "long texts again and again": "{% for i in range(50000) %}{% set x = 'a' * 10000000 %}{% endfor %}",
    "long lists again and again": "{% for i in range(40000) %}{% set x = range(90000)|list %}{% endfor %}",
    "a long search again and again": (
        "{% set x = 'ab' * 4000000 %}{% for i in range(50000) %}{% if 'zz' in x %}{% endif %}{% endfor %}"
    ),
    "a long comparison again and again": (
        "{% set x = 'ab' * 4000000 %}{% set y = 'ab' * 4000000 %}"
        "{% for i in range(50000) %}{% if x == y %}{% endif %}{% endfor %}"
    ),
    "a long copy again and again": (
        "{% set x = 'ab' * 4000000 %}{% for i in range(50000) %}{% set y = x[::-1] %}{% endfor %}"
    ),
    "much code in a loop": "{% for i in range(49000) %}" + "{% set x = 1 + 1 %}" * 2000 + "{% endfor %}",
    "a slow filter on a long text": "{{ ('x ' * 1000000)|wordwrap(1) }}",
    "no end of lorem ipsum": "{{ lipsum(n=100000000) }}",
}


CHILD = """
import json, resource, sys, time
from overnight.domain.errors import DataError
from overnight.domain.rows import Message
from overnight.domain.templates import ChatTemplate
for name, source in json.load(sys.stdin).items():
    begun = time.process_time()
    try:
        told = str(len(ChatTemplate(source, special_tokens={}).render([Message("user", "q")])))
    except DataError as error:
        told = error.code
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([name, told, time.process_time() - begun, peak]), flush=True)
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[str, float, float]]:
    """Render every bomb in a process of its own that has little memory: what each said, its seconds and the peak."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=json.dumps(BOMBS), capture_output=True, text=True, timeout=110,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (found[-1:], done.stderr)
    return {name: (told, seconds, peak) for name, told, seconds, peak in found}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_overdoes_is_refused_soon(measured: dict[str, tuple[str, float, float]], name: str) -> None:
    told, seconds, peak_mb = measured[name]
    assert told in ("template_too_costly", "template_refused")
    assert seconds < 20
    assert peak_mb < 500


ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "function": "{{ strftime_now.__self__.__class__ }}",
    "namespace": "{% set n = namespace(__init__=1) %}",
    "mutation": "{{ messages.append(1) }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "format by item": "{{ '{0[__class__]}'.format(messages[0]) }}",
    "attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "map attribute": "{{ ['']|map(attribute='__class__')|list|first|attr('__base__') }}",
    "by key": "{{ ''['__cl' ~ 'ass__'] }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "self": "{{ self.__init__.__globals__ }}",
    "environment": "{{ self._TemplateReference__context.environment }}",
    "counting": "{{ raise_exception.work }}{{ dict.__call__.__globals__ }}",
    "file": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
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
