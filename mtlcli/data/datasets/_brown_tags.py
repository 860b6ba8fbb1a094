"""Parts of speech of the Brown corpus: its tags, and the universal ones."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

Tagset = Literal["universal", "brown"]

UNIVERSAL = ("NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", "X", ".")
# universal tag → tags of the corpus, in lower case and without marks
GROUPS = {
    "NOUN": "nn nn$ nns nns$ np np$ nps nps$ nr nr$ nrs pn pn$",
    "VERB": "vb vbd vbg vbn vbz md be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz",
    "ADJ": "jj jj$ jjr jjs jjt ap ap$ od",
    "ADV": "rb rb$ rbr rbt rn ql qlp wrb wql *",
    "PRON": "pp$$ ppl ppls ppo pps ppss wpo wps",
    "DET": "at dt dt$ dti dts dtx pp$ wdt wp$ abx",
    "ADP": "in cs",
    "NUM": "cd cd$",
    "CONJ": "cc",
    "PRT": "abl abn ex rp to uh",
    "X": "nil",
    ".": ". , : ( ) -- '' `` '",
}
BROWN = tuple(tag for tags in GROUPS.values() for tag in tags.split())
_TO_UNIVERSAL = {tag: name for name, tags in GROUPS.items() for tag in tags.split()}
_MARKS = re.compile(r"(-(hl|tl|nc))+$")  # of headlines, titles and cited words


def tags_of(tagset: Tagset) -> tuple[str, ...]:
    """Return the tags of a tagset."""
    return UNIVERSAL if tagset == "universal" else BROWN


@cache
def convert_tag(tag: str, tagset: Tagset) -> str:
    """Convert a tag of the corpus.

    Marks of headlines, titles and cited words are removed. A contraction (`md*`, `pps+bez`) has the tag of its first
    part.

    Args:
        tag: the tag in a file, such as `nn-tl` or `fw-in+nn`.
        tagset: `universal`: the 12 tags of Petrov et al., with X for foreign words. Their mapping has PRT for the
            contraction of a pronoun and a verb, which is PRON here. `brown`: the tag itself.

    Returns:
        The tag.

    Raises:
        ValueError: the tag is unknown.
    """
    plain = tag.lower()
    foreign = plain.startswith("fw-")
    first = _MARKS.sub("", plain.removeprefix("fw-"))
    if first not in _TO_UNIVERSAL:
        first = _MARKS.sub("", first.partition("+")[0])
    if first not in _TO_UNIVERSAL:
        first = first.rstrip("*")
    if first not in _TO_UNIVERSAL:
        raise ValueError(f"the tag {tag!r} is unknown")
    if tagset == "brown":
        return first
    return "X" if foreign else _TO_UNIVERSAL[first]
