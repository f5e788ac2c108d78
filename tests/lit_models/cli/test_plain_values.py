"""Words where a setting takes none are refused before torch is imported, and nothing that the parser takes."""

import pytest
import yaml

from lit_models.cli.arguments import OF_TOP_LEVEL
from lit_models.cli.names import configurations
from lit_models.cli.plain_values import wrong_word
from lit_models.cli.suggestions import trainer_arguments
from lit_models.support import sources


@pytest.mark.parametrize(
    ("annotation", "word", "sentence"),
    [
        ("int", "three", "--model.x is three; it must be a whole number."),
        ("int | None", "three", "--model.x is three; it must be a whole number or null."),
        ("Optional[Union[int, float]]", "abc", "--model.x is abc; it must be a number or null."),
        ("bool", "maybe", "--model.x is maybe; it must be true or false."),
        ("Literal['mean', 'sum']", "summ", "--model.x is summ; it must be mean or sum. Did you mean sum?"),
        ("float | Literal['soft']", "hard", "--model.x is hard; it must be a number or soft."),
    ],
)
def test_a_word_that_can_not_be_meant(annotation: str, word: str, sentence: str) -> None:
    assert wrong_word(("model", "x"), annotation, word) == sentence


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        ("int", ["3", "-3", "0x10", "1_000", "8.5", "null", "None", 3, None, "[1]", ""]),
        ("float", ["1e-3", ".5", "nan", "inf", ".inf", "-.inf"]),
        ("bool", ["true", "False", "yes", "off", "0"]),
        ("Literal[1, 2]", ["1", 2]),
        ("Literal['a'] | None", ["a", "null"]),
        ("str", ["anything"]),
        ("int | str", ["anything"]),
        ("Evaluation", ["anything"]),
        ("list[int]", ["anything"]),
        ("OptimizerCallable", ["Adam"]),
        ("", ["anything"]),
    ],
)
def test_what_may_be_meant_is_left_to_the_parser(annotation: str, values: list[object]) -> None:
    assert [value for value in values if wrong_word(("model", "x"), annotation, value)] == []


def test_no_configuration_of_relits_holds_such_a_word() -> None:
    classes = {**sources.methods(), **sources.data_sets()}
    judged = 0
    for path in configurations().values():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        types = {name: one.type for name, one in trainer_arguments().items()}
        values = dict(content.get("trainer") or {})
        for part in ("model", "data"):
            section = content.get(part) or {}
            name = str(section.get("class_path")).rpartition(".")[2]
            if name in classes:
                types |= {one.name: one.type for one in sources.describe(classes[name], name).arguments}
                values |= section.get("init_args") or {}
        types |= OF_TOP_LEVEL
        values |= {name: value for name, value in content.items() if name in OF_TOP_LEVEL}
        judged += sum(isinstance(value, str) for value in values.values())
        assert [name for name, value in values.items() if wrong_word((name,), types.get(name, ""), value)] == [], path
    assert judged > 20
