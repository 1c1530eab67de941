"""The sandbox that chat templates run in: all work is counted, whatever way a template finds to make it large.

jinja2's own sandbox keeps a template away from the machine. This one puts counting into the template's code, its
filters, tests, methods and operators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from overnight.domain.template_work import ELEMENT, NODE, WIDTHS, TooCostlyError, Work, growth, require_bits

SLOW = frozenset({"urlize", "striptags", "wordwrap", "pprint", "xmlattr", "title", "sort", "groupby", "unique"})
SLOWNESS = 32
FREE = frozenset({"length", "count", "first", "last", "default", "d", "attr", "int", "float", "abs"})
COMPARING = (
    "in",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox that also counts."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, work: Work, **options: Any) -> None:
        super().__init__(**options, extensions=[Limits, "jinja2.ext.loopcontrols"], finalize=work.weigh)
        self.work = work
        del self.globals["lipsum"]  # at random, and as much as is asked for
        del self.filters["random"]
        for name, filter_ in list(self.filters.items()):
            self.filters[name] = filter_ if name in FREE else self.counted(name, filter_)
        for name in COMPARING:
            self.tests[name] = self._counted_test(self.tests[name])

    def counted(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that charges for what it reads and what it gives."""
        work, factor = self.work, SLOWNESS if name in SLOW else 1
        place = 1 if getattr(filter_, "jinja_pass_arg", None) is not None else 0

        @wraps(filter_)
        def charged(*values: Any, **named: Any) -> Any:
            if len(values) == place + 1 and not named and factor == 1 and isinstance(values[place], str):
                work.weigh(values[place])
                return work.weigh(filter_(*values))
            value, rest = values[place], [*values[place + 1 :], *named.values()]
            if name in ("join", "sum", "list") and not hasattr(value, "__len__") and hasattr(value, "__iter__"):
                value = list(itertools.islice(value, self.work.longest // ELEMENT + 1))
                values = (*values[:place], value, *values[place + 1 :])
            work.require_numbers(rest)
            before = work.left
            work.weigh(value)
            work.charge((before - work.left) * (factor - 1))
            for other in rest:
                work.weigh(other)
            work.charge(growth(name, value, rest))
            return work.weigh(filter_(*values, **named))

        return charged

    def _counted_test(self, test: Any) -> Callable[..., Any]:
        work = self.work

        @wraps(test)
        def charged(*values: Any) -> Any:
            for value in values:
                work.weigh(value)
            return test(*values)

        return charged

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Refuse widths that nobody means in ``str.format``."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and WIDTHS.search(value.__self__):
            raise TooCostlyError("the template formats text with a wide field")
        return wrapped

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Charge for what a call reads and what it gives."""
        work = __self.work
        owner = getattr(__obj, "__self__", None)
        if type(owner) is Limits:
            return __obj(*args)
        if isinstance(owner, str | list | tuple | dict):
            values = [*args, *kwargs.values()]
            name = getattr(__obj, "__name__", "")
            work.require_numbers(values)
            if isinstance(owner, str) or name in ("index", "count", "copy"):
                work.weigh(owner)
                if name == "join" and values and not hasattr(values[0], "__len__"):
                    args = (list(itertools.islice(values[0], work.longest // ELEMENT + 1)), *args[1:])
                    values = list(args)
                for value in values:
                    work.weigh(value)
                work.charge(growth(name, owner, values))
        return work.weigh(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Judge the operands, then do what the operator does."""
        if operator == "%" and isinstance(left, str):
            raise TooCostlyError("the template formats text with %")
        if operator == "*":
            for size, other in ((left, right), (right, left)):
                if isinstance(size, int) and isinstance(other, str | list | tuple):
                    before = self.work.left
                    self.work.weigh(other)
                    self.work.charge((before - self.work.left) * max(size - 1, 0))
            if isinstance(left, int) and isinstance(right, int):
                require_bits(left.bit_length() + right.bit_length())
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            require_bits(left.bit_length() * max(right, 0))
        if operator == "+" and isinstance(left, str | list | tuple):
            self.work.weigh(left)
            self.work.weigh(right)
        return super().call_binop(context, operator, left, right)


class Limits(jinja2.ext.Extension):
    """Puts the counting into a template's own code; takes the generation tag as plain grouping."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Read ``{% generation %} ... {% endgeneration %}``."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)

    def count_turn(self, units: int) -> str:
        """Count one turn of a loop or call of a macro."""
        work: Work = self.environment.work  # type: ignore[attr-defined] # the sandbox's
        work.turns -= 1
        if work.turns < 0:
            raise TooCostlyError("the template loops too often")
        work.charge(units)
        return ""

    def searched(self, value: Any) -> Any:
        """Charge for looking for something in a value."""
        return value if isinstance(value, dict) else self.weigh(value)

    def copied(self, value: Any) -> Any:
        """Charge for a part of a text or list, which holds nothing new."""
        work: Work = self.environment.work  # type: ignore[attr-defined]
        work.charge(ELEMENT * len(value) if isinstance(value, list | tuple) else len(str(value)))
        return value

    def weigh(self, value: Any) -> Any:
        """Charge for a value."""
        return self.environment.work.weigh(value)  # type: ignore[attr-defined]

    def joined(self, *values: Any) -> str:
        """Do what the operator ~ does."""
        return "".join(str(self.weigh(value)) for value in values)

    def inject(self, tree: jinja2.nodes.Template) -> None:
        """Put the counting into loops and macros, literals, comparisons, slices, and where text is put together."""
        for node in tree.find_all((jinja2.nodes.For, jinja2.nodes.Macro, jinja2.nodes.CallBlock)):
            parts = [part for child in node.iter_child_nodes() for part in (child, *child.find_all(jinja2.nodes.Node))]
            static = sum(len(part.data) for part in parts if isinstance(part, jinja2.nodes.TemplateData))
            units = jinja2.nodes.Const(static + NODE * len(parts))
            body: list[jinja2.nodes.Node] = node.body  # type: ignore[attr-defined] # all three have one
            body.insert(0, jinja2.nodes.ExprStmt(self.call_method("count_turn", [units])))
        _Injector(self).visit(tree)


class _Injector(NodeTransformer):
    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def _weighed(self, node: jinja2.nodes.Expr, how: str = "weigh") -> jinja2.nodes.Expr:
        return self.limits.call_method(how, [node])

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return self.limits.call_method("joined", node.nodes)

    def visit_Compare(self, node: jinja2.nodes.Compare) -> jinja2.nodes.Node:
        self.generic_visit(node)
        for operand in node.ops:
            is_search = operand.op in ("in", "notin")
            if not isinstance(operand.expr, jinja2.nodes.Const) and (
                is_search or not isinstance(node.expr, jinja2.nodes.Const)
            ):
                operand.expr = self._weighed(operand.expr, "searched" if is_search else "weigh")
        return node

    def visit_Getitem(self, node: jinja2.nodes.Getitem) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return self._weighed(node, "copied") if isinstance(node.arg, jinja2.nodes.Slice) else node

    def visit_Tuple(self, node: jinja2.nodes.Tuple) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return self._weighed(node) if node.ctx == "load" else node

    def visit_made(self, node: jinja2.nodes.Expr) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return self._weighed(node)

    visit_List = visit_Dict = visit_made
