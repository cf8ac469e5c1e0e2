"""params.yaml as typed, strict settings: what is unknown, missing or out of range is refused by name."""

import codecs
import re
import reprlib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from stages.program.errors import StageError, shorten, suggest

AnySection = TypeVar("AnySection", bound="Section")
Convention = Literal["native", "torch", "keras"]
Precision = Literal["float32", "float64"]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Stars = Annotated[float, Field(ge=-1e6, le=1e6)]
"""A rating; float32, which keeps it, is exact to a tenth there."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Word = Annotated[str, StringConstraints(strip_whitespace=True)]


class Section(BaseModel):
    """A part of params.yaml: types are exact, unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _check_column(column: object) -> object:
    if column is None or (isinstance(column, str) and column) or (type(column) is int and column >= 1):
        return column
    raise ValueError(f"{reprlib.repr(column)} is no column; it should be a name or, with header: false, a place from 1")


Column = Annotated[str | int, PlainValidator(_check_column)]
"""A column's name; its place from 1 where the file has no header."""


class Columns(Section):
    """Which three of the file's columns are read."""

    user: Annotated[str | int | None, PlainValidator(_check_column)]
    """None where each file is one user's, named after the file."""
    book: Column
    rating: Column

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.book is None or self.rating is None:
            raise ValueError("only user can be null")
        if len({self.user, self.book, self.rating}) < 3:
            raise ValueError("user, book and rating must name three different columns")
        return self


NOT_OF_FILES = {"idna", "punycode", "raw-unicode-escape", "unicode-escape"}


class Prepare(Section):
    """What `prepare-ratings` reads and keeps."""

    ratings: str = Field(pattern=r"^[^\x00]+$")
    """A file, a folder or a pattern, relative to the project's folder or absolute: CSV, JSON or Parquet."""
    files: str = Field("*", pattern=r"^[^\x00/]+$")
    """Which of a folder's files are read, as a pattern."""
    columns: Columns
    header: bool = True
    """Whether the first line of a CSV file names its columns."""
    separator: Literal["auto", ",", ";", "\t", "\\t", "|", "::", " "] = "auto"
    quotes: Literal[True, False, "backslash"] = True
    """Whether quotes hold a field together that may have separators and line breaks within; else they are text.

    A quote within such a field is written twice, or after a backslash.
    """
    encoding: str = "utf-8"
    """Of text, by Python's name."""
    rating_words: dict[Word, Stars] = {}
    """Ratings that are words, with their stars."""
    not_rated: list[Word | Stars] = []
    """Values that mean 'not rated': their rows are left out and counted."""
    missing_ids: Literal["error", "leave_out"] = "error"
    """What becomes of a row without a user or a book."""
    rating_scale: list[Stars] = Field(min_length=2, max_length=2)
    """The lowest and the highest rating."""
    on_duplicate: Literal["last", "first", "mean", "error"]
    """Which rating counts when one user rated one book more than once."""
    min_ratings_per_user: Count
    min_ratings_per_book: Count

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
            codecs.getincrementaldecoder(encoding)
            if codecs.lookup(encoding).name.replace("_", "-") in NOT_OF_FILES:
                raise LookupError
        except (LookupError, ValueError) as error:
            raise ValueError(f"{reprlib.repr(encoding)} is no encoding of text that Python knows") from error
        return encoding

    @model_validator(mode="after")
    def _columns_are_named_or_counted(self) -> Self:
        for role, column in self.columns:
            if column is not None and isinstance(column, str) != self.header:
                kind = "a name" if self.header else "a place from 1"
                raise ValueError(f"columns.{role} {column!r} must be {kind} where header is {str(self.header).lower()}")
        return self

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.rating_scale[0] >= self.rating_scale[1]:
            raise ValueError(f"rating_scale {self.rating_scale} must be [lowest, highest]")
        return self


class Split(Section):
    """How `split` draws its parts."""

    validation: Fraction
    """The part of all ratings that goes to validation."""
    test: Fraction
    """The part of all ratings that goes to the test."""
    seed: Seed

    @model_validator(mode="after")
    def _leave_training_rows(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} + test {self.test} must be below 1, to leave rows to train on"
            )
        return self


class Model(Section):
    """The network's size, the same in both frameworks."""

    embedding_dim: int = Field(ge=1, le=4096)
    hidden_units: list[Annotated[int, Field(ge=1, le=65536)]]
    """The width of each hidden layer; empty for none."""
    output_bias: Literal["convention", "mean"]
    """Where the output layer's bias starts: as `conventions.bias_init` says, or at the mean of the training ratings."""

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each dense layer, from the book's and the user's vector to the stars."""
        return list(pairwise([2 * self.embedding_dim, *self.hidden_units, 1]))


class Train(Section):
    """The training, the same in both frameworks."""

    epochs: Count
    batch_size: Count
    learning_rate: float = Field(gt=0)
    average_epochs: bool
    """Judge and keep the mean of the weights at the ends of all epochs so far; the training itself goes on from its own
    weights. The counterpart of stochastic weight averaging (Izmailov and others 2018), from the first epoch on."""
    seed: Seed
    """Of the initial weights and the order of the batches."""
    precision: Precision
    threads: int = Field(ge=1, le=1024)
    """CPU threads of either framework."""


class Conventions(Section):
    """Which framework's convention a trainer follows; `native` leaves its framework alone."""

    embedding_init: Convention
    dense_init: Convention
    bias_init: Convention
    adam_epsilon: Convention
    adam_betas: Convention
    repeated_rows: Convention


class Torch(Section):
    """What only `train-torch` needs."""

    device: str

    @field_validator("device")
    @classmethod
    def _device_has_a_known_name(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?", device):
            raise ValueError(f"{reprlib.repr(device)} is no device; it should be auto, cpu, mps, cuda or cuda:<number>")
        return device


class Keras(Section):
    """What only `train-keras` needs."""

    backend: Literal["tensorflow", "torch"]
    steps_per_execution: int = Field(ge=1, le=4096)
    """Batches that TensorFlow trains on between two returns to Python."""


class Ray(Section):
    """Where `engine: ray` runs."""

    address: str = Field(default="local", pattern=r"^(local|auto|[A-Za-z0-9_.-]+:[0-9]{1,5})$")
    """`local` starts a cluster on this machine for each stage; `auto` or host:port joins the one that is there."""
    workers: int = Field(default=2, ge=1, le=4096)
    """Processes that read, or train, at the same time."""


class TitleColumns(Section):
    """The names of the titles file's columns, where they can't be told."""

    book: str = Field(min_length=1)
    """The id, as in the ratings file."""
    title: str = Field(min_length=1)
    author: str | None = None


class Recommend(Section):
    """What only `python -m recommend` needs."""

    titles: str | None = None
    """A file with the books' titles, CSV or JSON lines, relative to the project's folder or absolute."""
    columns: TitleColumns | None = None


class Params(Section):
    """The whole of params.yaml."""

    prepare: Prepare
    split: Split
    model: Model
    train: Train
    conventions: Conventions
    torch: Torch
    keras: Keras
    recommend: Recommend = Recommend()
    """May be left out: the pipeline doesn't need it."""
    engine: Literal["local", "ray"] = "local"
    """Where the stages compute: in their own process, or on a Ray cluster. May be left out, and so may `ray`."""
    ray: Ray = Ray()


def load_params(path: str | Path) -> Params:
    """Read and check params.yaml: the whole file, so that a mistake in a later stage's section shows at once."""
    return load_settings(path, Params)


def load_settings(path: str | Path, kind: type[AnySection]) -> AnySection:
    """Read and check a file of settings.

    Raises:
        StageError: the file is missing, isn't YAML, or holds settings that aren't valid.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not in UTF-8: {error}") from error
    try:
        content = YAML(typ="safe").load(text)  # as DVC reads it: YAML 1.2, where 1e-3 is a number and 010 is ten
    except Exception as error:  # whatever a value does to a constructor of the parser: KeyError, RecursionError, …
        raise StageError(f"{path} is not valid YAML: {shorten(' '.join(str(error).split()), 300)}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise StageError("\n".join(_explain(path, kind, problem) for problem in error.errors())) from error


def _explain(path: str | Path, kind: type[Section], problem: ErrorDetails) -> str:
    """One line: the key, what stands there, and what is allowed."""
    location = [part if (part := str(name)).isprintable() else repr(part) for name in problem["loc"]]
    key = ".".join(location)
    match problem["type"]:
        case "missing":
            return f"{path}: {key} is missing"
        case "extra_forbidden" | "invalid_key":
            return f"{path}: {key} is not a setting; {_suggest(kind, location)}"
        case "value_error":
            return f"{path}: {key}: {problem['ctx']['error']}"
        case "model_type":
            found = "empty" if problem["input"] is None else reprlib.repr(problem["input"])
            return f"{path}: {key or 'the file'} is {found}; it should be settings by name"
        case _:
            allowed = re.sub(r"^(Input|String|List) ", "", problem["msg"])
            return f"{path}: {key} is {reprlib.repr(problem['input'])}; it {allowed}"


def _suggest(kind: type[Section], location: list[str]) -> str:
    section: type[BaseModel] = kind
    for part in location[:-1]:
        section = section.model_fields[part].annotation  # type: ignore[assignment]
    return suggest(location[-1], section.model_fields)
