"""params.yaml as typed, strict settings: what is unknown, missing or out of range is refused by name."""

import difflib
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stages.common.program import StageError

Convention = Literal["native", "torch", "keras"]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of params.yaml: types are exact, unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Columns(Section):
    """The names of the file's three columns."""

    user: str = Field(min_length=1)
    book: str = Field(min_length=1)
    rating: str = Field(min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len({self.user, self.book, self.rating}) < 3:
            raise ValueError("user, book and rating must name three different columns")
        return self


class Prepare(Section):
    """What `prepare-ratings` reads and keeps."""

    ratings: str = Field(min_length=1)
    """The ratings file, CSV or Parquet, relative to the project's folder or absolute."""
    columns: Columns
    rating_scale: list[float] = Field(min_length=2, max_length=2)
    """The lowest and the highest rating."""
    on_duplicate: Literal["last", "first", "mean", "error"]
    """Which rating counts when one user rated one book more than once."""
    min_ratings_per_user: int = Field(ge=1)
    min_ratings_per_book: int = Field(ge=1)

    @model_validator(mode="after")
    def _scale_ascends(self) -> Self:
        if self.rating_scale[0] >= self.rating_scale[1]:
            raise ValueError(f"rating_scale {self.rating_scale} must be [lowest, highest]")
        return self


class Split(Section):
    """How `split` draws its parts."""

    validation: Fraction = Field(gt=0)
    """The part of all ratings that goes to validation."""
    test: Fraction = Field(gt=0)
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


class Train(Section):
    """The training, the same in both frameworks."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    seed: Seed
    """Of the initial weights and the order of the batches."""
    precision: Literal["float32", "float64"]
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

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Keras(Section):
    """What only `train-keras` needs."""

    backend: Literal["tensorflow", "torch"]
    steps_per_execution: int = Field(ge=1, le=4096)
    """Batches that TensorFlow trains on between two returns to Python."""

    @model_validator(mode="after")
    def _backend_is_installed(self) -> Self:
        if importlib.util.find_spec(self.backend) is None:
            raise ValueError(f"backend {self.backend} is not installed; run: pip install -r requirements.txt")
        return self


class Params(Section):
    """The whole of params.yaml."""

    prepare: Prepare
    split: Split
    model: Model
    train: Train
    conventions: Conventions
    torch: Torch
    keras: Keras


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Every stage checks the whole file, so that a mistake in a later stage's section shows before the first one runs.

    Raises:
        StageError: the file is missing, isn't YAML, or holds settings that aren't valid.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Yaml12Loader)  # noqa: S506, a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise StageError("\n".join(_explain(path, problem) for problem in error.errors())) from error


class _Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers as DVC reads them: YAML 1.2 takes 1e-3 for a float, YAML 1.1 for a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key {repeated[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _explain(path: Path, problem: ErrorDetails) -> str:
    """One line: the key, what stands there, and what is allowed."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    match problem["type"]:
        case "missing":
            return f"{path}: {key} is missing"
        case "extra_forbidden":
            return f"{path}: {key} is not a setting; {_suggest(location)}"
        case "value_error":
            return f"{path}: {key}: {problem['ctx']['error']}"
        case _:
            message = problem["msg"].removeprefix("Input ")
            return f"{path}: {key or 'the file'} is {problem['input']!r}; it {message}"


def _suggest(location: list[str]) -> str:
    section: type[BaseModel] = Params
    for part in location[:-1]:
        section = section.model_fields[part].annotation  # type: ignore[assignment]
    return suggest(location[-1], section.model_fields)


def suggest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' where a known name is near, and the names there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(names)}"
