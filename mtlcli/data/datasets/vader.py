"""Texts of four domains with a sentiment rated by several people (VADER)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.archive_sources import ArchiveInside, WebArchive
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.text_features import FEATURES, Ngrams, TextSize
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

Domain = Literal["tweets", "movies", "amazon", "nyt"]
FILES = {"tweets": "tweets", "movies": "movieReviewSnippets", "amazon": "amazonReviewSnippets",
         "nyt": "nytEditorialSnippets"}  # fmt: skip
TEXTS, RATINGS = "_GroundTruth.txt", "_anonDataRatings.txt"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
TOLERANCE = 1e-6  # largest difference between the means of a text in the two files, which have 9 or more digits
CHECKSUMS = {
    "tweets_GroundTruth.txt": "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
    "tweets_anonDataRatings.txt": "390d6f8f1b5c7e6f9f94ad7fea1e461ed718312d1856ae71c5812ab8ae943fa6",
    "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
    "movieReviewSnippets_anonDataRatings.txt": "658a086bc7239b98b750baa232cab80e6447789020f96a6c847cc1248d7c82f4",
    "amazonReviewSnippets_GroundTruth.txt": "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
    "amazonReviewSnippets_anonDataRatings.txt": "d7d909adab91e0b4d5084251fc825f15baff66277c52eaa705b40fc464fa274b",
    "nytEditorialSnippets_GroundTruth.txt": "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e",
    "nytEditorialSnippets_anonDataRatings.txt": "803c87c5bb529334bb5ed5fca244aa935e5f342bc0a930d91a0f22e978ee39f2",
}
PATHS = {file: f"hutto_ICWSM_2014/{file}" for file in CHECKSUMS}


@datasets.register("vader")
class Vader(NamedTable):
    """Texts of four domains with their sentiment, the ground truth of VADER; each domain is a dataset of its own.

    Domains: `tweets` (4,200), `movies` (10,605 sentences of film reviews), `amazon` (3,708 sentences of 300 reviews of
    products) and `nyt` (5,190 sentences of 498 editorials of the New York Times). They have no text in common, so that
    a multi-task experiment has a dataset and a task for each domain.

    Inputs: `text` as hashed TF-IDF (see docs/tables.md). Datasets that share a trunk share the encoding.

    Targets: `sentiment` (real: the mean rating from -4, extremely negative, to 4, extremely positive, by about 100
    people for a tweet, 15 for a film and 20 for the others) and `deviation` (real: the standard deviation of the
    ratings). The deviation is missing for 199 tweets whose two files disagree about the mean.

    Splits: a fifth of the texts is `test`, drawn by their content; all sentences of a review (`amazon`) or an editorial
    (`nyt`) are in the same split. The sentences of film reviews don't name their review.

    Files: those of the archive that accompanies the paper, in `<root>/vader/raw`. Missing ones are extracted from
    the authors' archive on GitHub or the source package vaderSentiment on the Python package index, and are verified by
    checksum.

    Args:
        domain: domain of the texts.
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        features: number of features of the text.
        ngrams: longest sequence of words that is counted: 2 also counts pairs of words.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
        ICWSM 2014.
    """

    name = "vader"
    origin = "GitHub (cjhutto), or the Python package index (vaderSentiment)"
    collection = Collection(
        folder="vader",
        files=CHECKSUMS,
        sources=(
            WebArchive(
                f"https://raw.githubusercontent.com/cjhutto/vaderSentiment/master/additional_resources/{ARCHIVE}", PATHS
            ),
            ArchiveInside(
                PipPackage(
                    "vaderSentiment",
                    "3.3.2",
                    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
                    {ARCHIVE: f"additional_resources/{ARCHIVE}"},
                ),
                ARCHIVE,
                PATHS,
            ),
        ),
    )

    def __init__(
        self,
        *,
        domain: Domain = "tweets",
        root: str | None = None,
        download: bool = True,
        features: TextSize = 2 * FEATURES,
        ngrams: Ngrams = 1,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        self.domain = domain
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={"sentiment": TargetSpec("real"), "deviation": TargetSpec("real", missing=domain == "tweets")},
            columns={"text": features},
            ngrams=ngrams,
            group="document" if domain in ("amazon", "nyt") else None,
        )

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the texts and ratings of the domain.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.
        """
        texts = _read(files[FILES[self.domain] + TEXTS], 3)
        ratings = {number: (mean, std) for number, mean, std, _ in _read(files[FILES[self.domain] + RATINGS], 4)}
        deviations: list[str | None] = []
        for number, mean, _ in texts:
            mean_of_ratings, std = ratings.get(number, ("nan", "nan"))
            deviations.append(std if abs(float(mean) - float(mean_of_ratings)) < TOLERANCE else None)
        return {
            "text": [text.strip() for _, _, text in texts],
            "sentiment": [mean for _, mean, _ in texts],
            "deviation": deviations,
            "document": [number.partition("_")[0] for number, _, _ in texts],
        }


def _read(path: Path, width: int) -> list[list[str]]:
    """Read the lines of a file of tab-separated values without quotes; ValueError for a line of another width."""
    lines = path.read_bytes().decode("utf-8-sig", "replace").split("\n")  # not at other separators of Unicode
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    for at, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(f"{path}:{at}: {len(row)} values, expected {width}")
    return rows
