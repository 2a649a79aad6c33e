"""Expected values by hand; the bombs are what Jinja2's own sandbox lets through."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from experiments.catalog.content import Format, compile_content
from experiments.errors import InvalidTemplate, TemplateFailed


def render(template: str, *, format_: Format = "json", **values: object) -> Any:
    return compile_content({"t": template}, format=format_).render(values)["t"]


def refused(content: object) -> dict[str, str]:
    with pytest.raises(InvalidTemplate) as caught:
        compile_content(content, format="json")
    assert caught.value.code == "invalid_template"
    return dict(caught.value.fields)


def test_content_without_templates_is_served_as_it_is() -> None:
    content = {"title": "100 % {off}", "items": [1, 2.5, None, True, {"a": "b"}]}
    compiled = compile_content(content, format="json")
    assert compiled.is_static
    assert compiled.render({}) == content
    assert compiled.render({}) is compiled.render({"a": 1})


def test_templates_anywhere_in_content_are_rendered() -> None:
    content = {"a": ["Hi {{ name }}", {"b": "{{ n }}!"}], "c": 1, "d": "plain"}
    rendered = compile_content(content, format="json").render({"name": "Ann", "n": 3})
    assert rendered == {"a": ["Hi Ann", {"b": "3!"}], "c": 1, "d": "plain"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Hi {{ first_name | default('there') }}", "Hi there"),
        ("{{ shop.city }} {{ shop.zip | default('?') }}", "Graz ?"),
        ("{{ nowhere.city | default('?') }}", "?"),
        ("{% if orders > 2 and member %}A{% elif orders == 1 %}B{% else %}C{% endif %}", "A"),
        ("{{ 'yes' if member else 'no' }}", "yes"),
        ("{{ 'a' ~ orders ~ name }}", "a3ann"),
        ("{{ name | upper }} {{ name | title }} {{ ' x ' | trim }}", "ANN Ann x"),
        ("{{ 3.14159 | round(2) }} {{ '7' | int }} {{ tags | length }}", "3.14 7 2"),
        ("{{ 'a long sentence' | truncate(9, true, '…') }}", "a long s…"),
        ("{{ member }} {{ tags }} {{ since }}", "true a, b 2026-01-02T00:00:00+00:00"),
        ("{% if name is defined and nick is not defined %}x{% endif %}", "x"),
        ("{% raw %}{{ name }}{% endraw %}{# a comment #}", "{{ name }}"),
        ("{{ 'b' in tags }} {{ not member }}", "true false"),
        ("two\nlines\n{{ name }}\n", "two\nlines\nann\n"),
    ],
)
def test_templates_can_do_what_messages_need(template: str, expected: str) -> None:
    values: dict[str, Any] = {"shop": {"city": "Graz"}, "orders": 3, "member": True, "name": "ann", "tags": ["a", "b"]}
    assert render(template, since=datetime(2026, 1, 2, tzinfo=UTC), **values) == expected


def test_html_escapes_values_but_not_the_author() -> None:
    attack = "<script>alert('x')</script>"
    expected = "<b>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</b>"
    assert render("<b>{{ name }}</b>", format_="html", name=attack) == expected
    assert render("<b>{{ name | escape }}</b>", format_="html", name=attack) == expected
    assert render("<b>{{ '' ~ name }}</b>", format_="html", name=attack) == expected
    assert render("<b>{{ names }}</b>", format_="html", names=[attack]) == expected
    assert render("<b>{{ nick | default(name) }}</b>", format_="html", name=attack) == expected


def test_json_leaves_values_alone() -> None:
    assert render("{{ name }}", name="<a>\r\n") == "<a>\r\n"


def test_text_has_no_line_breaks_from_values_or_author() -> None:
    """A line break in a subject would begin another header of the email."""
    assert render("Hi {{ n }}!\n", format_="text", n="x\r\nBcc: y\u2028z") == "Hi x Bcc: y z!"
    assert render("{{ n ~ m }}", format_="text", n="x\r", m="\ny") == "x y"
    assert compile_content({"t": "a\r\nb"}, format="text").render({}) == {"t": "a b"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 200000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ name + name }}",
        "{{ -orders }}",
        "{% for x in range(10) %}{% endfor %}",
        "{% set x = name %}",
        "{% macro m() %}{% endmacro %}",
        "{% with x = 1 %}{% endwith %}",
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% block b %}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape false %}{{ name }}{% endautoescape %}",
        "{{ range(999999999) }}",
        "{{ lipsum() }}",
        "{{ name['__class__'] }}",
        "{{ ''.__class__ }}",
        "{{ name.upper() }}",
        "{{ (name ~ 'x').y }}",
        "{{ [1, 2] }}",
        "{{ {'a': 1} }}",
        "{{ self }}",
        "{{ name | replace('a', 'aaaa') }}",
        "{{ name | center(999999999) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ name | safe }}",
        "{{ name | attr('x') }}",
        "{{ name | escape | escape }}",
        "{{ (name | default(nick | escape) ~ '') | escape }}",
        "{{ 5 | round(-999999999) }}",
        "{{ 5.5 | round(orders) }}",
        "{{ 5.5 | round(2, 'ceil') }}",
        "{{ name | upper(*tags) }}",
        "{{ name is divisibleby(3) }}",
        "{{ name[0:2] }}",
        "{{ name",
        "{% nonsense %}",
        "{% if name %}",
        "{{ " + "(" * 30_000 + "1" + ")" * 30_000 + " }}",
        "{{ " + "not " * 15_000 + "x }}",
        "{{ x" + ".y" * 10_000 + " }}",
        "{{ " + "9" * 5_000 + " }}",
        "{{ x }}" * 5_000,
        "{{ " + " ~ ".join(["x"] * 5_000) + " }}",
        "{% if x %}" * 2_000 + "{% endif %}" * 2_000,
    ],
)
def test_a_template_that_could_run_long_or_reach_far_is_refused(template: str) -> None:
    """A bomb that went off would run into the time limit of the test."""
    assert refused({"deep": [{"t": template}]}).keys() <= {"/deep/0/t", ""}


def test_all_bad_templates_are_named() -> None:
    assert refused({"a": "{{ x() }}", "b": ["{{ y", "fine"]}).keys() == {"/a", "/b/0"}


def test_the_parts_of_all_templates_together_are_limited() -> None:
    assert refused([f"{{{{ x{i} }}}}" for i in range(1_000)]).keys() == {""}


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("{{ first_name }}", {}),
        ("{{ shop.city }}", {"shop": {}}),
        ("{{ shop.city }}", {}),
        ("{{ name.upper }}", {"name": "x"}),
        ("{{ shop.items }}", {"shop": {}}),
        ("{% if orders > 'x' %}{% endif %}", {"orders": 1}),
        ("{{ 'abc' | truncate(1) }}", {}),
        ("{{ orders | length }}", {"orders": 1}),
    ],
)
def test_a_template_that_fails_says_where_and_never_what(template: str, values: dict[str, object]) -> None:
    content = compile_content({"a": [template]}, format="json")
    with pytest.raises(TemplateFailed, match="/a/0") as caught:
        content.render(values)
    assert caught.value.code == "template_failed"


def test_output_is_at_most_64_kb_over_all_templates() -> None:
    content = compile_content({"a": "{{ x }}" * 3, "b": ["{{ x }}"]}, format="json")
    assert len(content.render({"x": "y" * 16_000})["b"][0]) == 16_000
    with pytest.raises(TemplateFailed):
        content.render({"x": "y" * 16_384})
    with pytest.raises(TemplateFailed):
        content.render({"x": "ä" * 8_200})


@pytest.mark.parametrize("format_", ["json", "html"])
def test_the_largest_template_on_the_largest_value_is_quick(format_: Format) -> None:
    template = "{% if " + " ~ ".join(["(x | escape)"] * 240) + " %}y{% endif %}"
    content = compile_content({"t": template}, format=format_)
    started = time.perf_counter()
    content.render({"x": "<" * 16_000})
    assert time.perf_counter() - started < 5
