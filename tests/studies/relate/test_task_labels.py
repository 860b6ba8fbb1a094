"""Labels of tasks as a study of relations compares them."""

from __future__ import annotations

import pytest

from mtlcli.errors import ConfigError
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec
from mtlcli.studies.relate.task_labels import label_type


@pytest.mark.parametrize(("kind", "expected"), [
    ("classification", "classes"), ("ordinal", "classes"), ("regression", "real"), ("quantile", "real"),
    ("poisson", "real"),
])  # fmt: skip
def test_numbers_are_real_labels_even_if_the_target_has_classes(kind: str, expected: str) -> None:
    assert label_type(kinds[kind].target(TargetSpec("classes", 5))) == expected


def test_labels_of_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="'tagging' has a label for each word"):
        label_type(kinds["tagging"].target(TargetSpec("tags", 5)))
