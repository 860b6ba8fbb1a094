"""Prompt templates."""

import pytest

from mtlcli.data.formats.prompts import Prompt, PromptTemplate, check_placeholders


def test_placeholders_are_filled_in() -> None:
    template = PromptTemplate.parse("Title: {title}\nReview: {Review Text} {{0}}\nRating:")
    assert template.columns == ("title", "Review Text")
    first, second = template.render_rows({"title": ["Nice", None], "Review Text": ["a {title}", "b"]})
    assert first == Prompt("Title: Nice\nReview: a {title} {0}\nRating:", ((7, 11), (20, 29)))
    assert second.text == "Title: \nReview: b {0}\nRating:"
    assert [second.text[start:stop] for start, stop in second.spans] == ["", "b"]


def test_a_placeholder_may_occur_twice() -> None:
    assert PromptTemplate.parse("{a}{a}").render({"a": "x"}) == Prompt("xx", ((0, 1), (1, 2)))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Summarize: {text", "has a '{' without its counterpart at character 12; write '{{'"),
        ("a } b {x}", "has a '}' without its counterpart at character 3; write '}}'"),
        ("{a{b}}", "has a '{' without its counterpart at character 1"),
        ("Summarize:", "has no placeholder"),
        ("", "has no placeholder"),
    ],
)
def test_invalid_templates(template: str, message: str) -> None:
    with pytest.raises(ValueError, match="the prompt") as error:
        PromptTemplate.parse(template)
    assert message in str(error.value)


def test_unknown_placeholders_get_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"\{titel\}, which is no column of the dataset\. Did you mean 'title'\?"):
        check_placeholders(["titel", "body"], ["title", "body"])
    check_placeholders(["titel", "body"], ["titel", "body", "other"])
