"""Parameters, right and wrong: what is taken, what is refused, and in which words."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.program.errors import StageError, shorten, suggest
from stages.program.params import Params, load_params
from tests.project import ROOT
from tests.samples import change, quick

PROJECT = (ROOT / "params.yaml").read_text(encoding="utf-8")
SETTINGS = YAML(typ="safe").load(PROJECT)


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def dump(folder: Path, settings: Any) -> Path:
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8", errors="surrogatepass") as file:
        YAML(typ="safe").dump(settings, file)
    return path


def edit(folder: Path, key: str, value: str | None) -> Path:
    """The project's parameters with one of them written differently, or (None) left out."""
    settings = copy.deepcopy(SETTINGS)
    *sections, name = key.split(".")
    section = settings
    for part in sections:
        section = section[part]
    section[name] = YAML(typ="safe").load(f"value: {value}")["value"]
    if value is None:
        del section[name]
    return dump(folder, settings)


def refusal(path: Path) -> str:
    with pytest.raises(StageError) as caught:
        load_params(path)
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_the_parameters_of_the_published_results_are_valid(params: Params) -> None:
    published = load_params(ROOT / "docs" / "goodbooks-10k" / "params.yaml")

    changed = {"ratings": published.prepare.ratings}, {"batch_size": 1024}
    assert published == change(params, prepare=changed[0], train=changed[1])


def test_parameters_from_before_there_were_engines_mean_the_local_one(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, PROJECT.partition("\n# Where the stages compute.")[0] + "\n"))
    assert params.engine == "local"


TAKEN: dict[str, tuple[str, str, Any]] = {
    "powers of ten": ("train.learning_rate", "1e-3", 0.001),
    "a whole number for a fraction": ("train.learning_rate", "1", 1.0),
    "a leading zero, which isn't octal": ("train.epochs", "010", 10),
    "a word that YAML 1.1 took for a truth value": ("prepare.columns.user", "on", "on"),
    "no hidden layers": ("model.hidden_units", "[]", []),
    "the largest seed": ("split.seed", "4294967295", 2**32 - 1),
    "a GPU": ("torch.device", "cuda:1", "cuda:1"),
    "no column for the users": ("prepare.columns.user", "null", None),
    "words": ("prepare.rating_words", "{it was amazing: 5}", {"it was amazing": 5.0}),
    "what isn't rated": ("prepare.not_rated", "[0, 'no']", [0.0, "no"]),
    "a tab without quotes": ("prepare.separator", r"\t", r"\t"),
    "a path with anything in it": ("prepare.ratings", "\"-a $(b); 'c' ü.csv\"", "-a $(b); 'c' ü.csv"),
}


@pytest.mark.parametrize(("key", "value", "expected"), TAKEN.values(), ids=TAKEN)
def test_takes(key: str, value: str, expected: Any, tmp_path: Path) -> None:
    taken: Any = load_params(edit(tmp_path, key, value))
    for part in key.split("."):
        taken = getattr(taken, part)
    assert taken == expected
    assert type(taken) is type(expected)


# In a message, … is the key.
REFUSED: dict[str, tuple[str, str | None, str]] = {
    "unknown key": ("train.epoch", "5", "… is not a setting; did you mean 'epochs'? known: 'epochs', 'batch_size'"),
    "unknown key of columns": ("prepare.columns.item", "x", "… is not a setting; known: 'user'"),
    "unknown section": ("pytorch", "{}", "… is not a setting; did you mean 'torch'? known: 'prepare', 'split'"),
    "a number for a key": ("train.7", "5", "… is not a setting"),
    "missing key": ("train.epochs", None, "… is missing"),
    "missing section": ("train", None, "… is missing"),
    "nothing for a value": ("train.epochs", "", "… is None; it should be a valid integer"),
    "a quoted number": ("train.epochs", "'5'", "… is '5'; it should be a valid integer"),
    "a float for a whole number": ("train.epochs", "5.0", "… is 5.0; it should be a valid integer"),
    "a truth value for a whole number": ("train.epochs", "true", "… is True; it should be a valid integer"),
    "a truth value for a fraction": ("split.test", "true", "… is True; it should be a valid number"),
    "a number for text": ("prepare.ratings", "7", "… is 7; it should be a valid string"),
    "text for a section": ("prepare.columns", "user_id", "… is 'user_id'; it should be settings by name"),
    "nothing for a section": ("torch", "", "… is empty; it should be settings by name"),
    "a number for a list": ("model.hidden_units", "128", "… is 128; it should be a valid list"),
    "NaN": ("train.learning_rate", ".nan", "… is nan; it should be a finite number"),
    "infinite": ("train.learning_rate", "1e999", "… is inf; it should be a finite number"),
    "zero": ("train.epochs", "0", "… is 0; it should be greater than or equal to 1"),
    "negative": ("train.learning_rate", "-1e-3", "… is -0.001; it should be greater than 0"),
    "too large": ("train.batch_size", "3000000000", "… is 3000000000; it should be less than 2147483648"),
    "far too large": ("train.epochs", "9" * 200, "… is 999"),
    "a seed too large": ("split.seed", "4294967296", "… is 4294967296; it should be less than 4294967296"),
    "a negative seed": ("train.seed", "-1", "… is -1; it should be greater than or equal to 0"),
    "nothing for validation": ("split.validation", "0", "… is 0; it should be greater than 0"),
    "all for the test": ("split.test", "1.0", "… is 1.0; it should be less than 1"),
    "too much held out": ("split.validation", "0.95", "split: validation 0.95 + test 0.1 must be below 1"),
    "none of the choices": (
        "prepare.on_duplicate", "keep", "… is 'keep'; it should be 'last', 'first', 'mean' or 'error'"
    ),
    "none of the conventions": ("conventions.bias_init", "tf", "… is 'tf'; it should be 'native', 'torch' or 'keras'"),
    "none of the engines": ("engine", "spark", "… is 'spark'; it should be 'local' or 'ray'"),
    "none of the devices": ("torch.device", "gpu", "…: 'gpu' is no device; it should be auto, cpu,"),
    "no ratings": ("prepare.ratings", "''", "… is ''; it should"),
    "a path with NUL": ("prepare.ratings", r'"a\0b"', r"… is 'a\x00b'; it should"),
    "a path that is no Unicode": ("prepare.ratings", r'"\ud800"', r"… is '\ud800'; it should be a valid string"),
    "an empty column": (
        "prepare.columns.user", "''", "…: '' is no column; it should be a name or, with header: false, a place from 1"
    ),
    "one column twice": (
        "prepare.columns.user", "book_id", "prepare.columns: user, book and rating must name three different columns"
    ),
    "a place where there is a header": (
        "prepare.columns", "{user: 1, book: b, rating: r}",
        "prepare: columns.user 1 must be a name where header is true",
    ),
    "a name where there is no header": (
        "prepare.header", "false", "prepare: columns.user 'user_id' must be a place from 1 where header is false"
    ),
    "no column for the books": ("prepare.columns", "{user: u, book: null, rating: r}", "…: only user can be null"),
    "an unknown encoding": ("prepare.encoding", "utf-9", "…: 'utf-9' is no encoding of text"),
    "an encoding of names": ("prepare.encoding", "punycode", "…: 'punycode' is no encoding of text"),
    "an encoding of bytes": ("prepare.encoding", "zip", "…: 'zip' is no encoding of text"),
    "another separator": ("prepare.separator", "':'", "… is ':'; it should be 'auto', ','"),
    "a word that isn't text": ("prepare.rating_words", "{5: 5}", "….5.[key] is 5; it should be"),
    "a scale upside down": (
        "prepare.rating_scale", "[5, 1]", "prepare: rating_scale [5.0, 1.0] must be [lowest, highest]"
    ),
    "a scale of one number": ("prepare.rating_scale", "[5]", "… is [5]; it should have at least 2 items"),
    "a scale past float32": ("prepare.rating_scale", "[1, 1e39]", "….1 is 1e+39; it should be less than or equal"),
    "a minimum of zero": ("prepare.min_ratings_per_user", "0", "… is 0; it should be greater"),
    "an address with a scheme": ("ray.address", "'ray://a:1'", "… is 'ray://a:1'; it should match pattern"),
    "no workers": ("ray.workers", "0", "… is 0; it should be greater than or equal to 1"),
    "an empty hidden layer": ("model.hidden_units", "[8, 0]", "….1 is 0; it should be greater"),
}  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(key: str, value: str | None, message: str, tmp_path: Path) -> None:
    said = refusal(edit(tmp_path, key, value))
    assert said.startswith(f"params.yaml: {message}".replace("…", key))
    assert len(said.splitlines()) == 1
    assert len(said) < 400


NOT_PARAMETERS: dict[str, tuple[str, str]] = {
    "empty": ("", "params.yaml: the file is empty; it should be settings by name"),
    "comments alone": ("# nothing\n", "params.yaml: the file is empty; it should be settings by name"),
    "a list": ("- train\n", "params.yaml: the file is ['train']; it should be settings by name"),
    "text": ("train\n", "params.yaml: the file is 'train'; it should be settings by name"),
    "a bracket left open": ("train: {epochs: 5\n", "params.yaml is not valid YAML: while parsing a flow mapping"),
    "a tab": ("train:\n\tepochs: 5\n", "params.yaml is not valid YAML: while scanning"),
    "a key twice": ("train: {}\nsplit: {}\ntrain: {}\n", 'found duplicate key "train"'),
    "two documents": ("train: {}\n---\ntrain: {}\n", "params.yaml is not valid YAML: expected a single document"),
    "a Python object": ("train: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    "a value that its tag can't take": ("train: !!bool x\n", "params.yaml is not valid YAML"),
    "a day that there isn't": ("train: 2020-13-45\n", "params.yaml is not valid YAML: month must be in 1..12"),
    "nested without end": ("[" * 1200, "params.yaml is not valid YAML: maximum recursion depth exceeded"),
    "a list of itself": ("train: &a [*a]\n", "params.yaml: train is [[["),
    "a number for a key": (PROJECT + "7: x\n", "params.yaml: 7 is not a setting; known: 'prepare'"),
    "a key to colour the terminal": (PROJECT + '"\\e[31m": x\n', r"params.yaml: '\x1b[31m' is not a setting"),
    "a NUL byte": ("train: '\0'\n", "params.yaml is not valid YAML: unacceptable character"),
}


@pytest.mark.parametrize(("text", "message"), NOT_PARAMETERS.values(), ids=NOT_PARAMETERS)
def test_refuses_a_file_that_holds_no_parameters(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(write(tmp_path, text))


def test_refuses_lists_that_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    assert "a39 is not a setting" in refusal(write(tmp_path, "\n".join(lines) + "\n" + PROJECT))


def test_refuses_a_file_that_is_no_text(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "params.yaml")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "params.yaml").write_bytes(b"train: \xff\n")
    assert "params.yaml is not in UTF-8" in refusal(tmp_path / "params.yaml")


def test_names_all_that_is_wrong_a_line_each(tmp_path: Path) -> None:
    text = PROJECT.replace("epochs: 5", "epochs: 0").replace("seed: 42", "seed: no")
    assert [line.split()[1] for line in refusal(write(tmp_path, text)).splitlines()] == [
        "split.seed",
        "train.epochs",
        "train.seed",
    ]


def test_settings_do_not_change(params: Params) -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(params.train, "epochs", 7)  # noqa: B010, a type checker refuses the plain form


def test_suggests_the_nearest_names_and_lists_no_more_than_a_message_takes() -> None:
    assert suggest("USER", ["user_id", "users", "x"]) == "did you mean 'users'? known: 'user_id', 'users', 'x'"
    assert suggest("q", [str(number) for number in range(99)]).endswith("'19', …")
    assert len(suggest("q", ["x" * 10_000])) < 60
    assert shorten("x" * 41) == "x" * 38 + " …"


texts = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


@quick
@given(
    section=st.sampled_from([name for name in Params.model_fields if name != "engine"]),
    key=texts | st.just("seed"),
    value=trees,
)
def test_anything_is_taken_or_refused(section: str, key: str, value: Any, tmp_path: Path) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings[section][key] = value
    path = dump(tmp_path, settings)
    with contextlib.suppress(StageError):
        load_params(path)
