"""The contract: every method against it, and the contributors' page against the file."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lit_models
from lit_models import METHODS, module
from lit_models.cli.export import INPUTS, OUTPUTS
from lit_models.module import Export, Method
from lit_models.support.lightning_internals import data_of
from lit_models.support.weights import hyperparameter_names, state_of
from tests.support.fixtures import Patch
from tests.support.small_models import checkpoint_of, small_model

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "add_a_method.md"
TITLES = {name: name for name in METHODS}
PROTOCOLS = [
    kind for kind in vars(module).values() if getattr(kind, "_is_protocol", False) and "lit" in kind.__module__
]


def strings(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_the_contract(name: str) -> None:
    kind, model = getattr(lit_models, name), small_model(TITLES[name])
    arguments = set(hyperparameter_names(kind))
    assert isinstance(model, Method)
    assert (kind.__doc__ or "").strip()
    channels, height, width = model.image_shape
    assert min(channels, height, width) >= 1
    assert type(model.num_classes) is type(model.latent_dim) is int
    assert isinstance(kind.needs_find_unused_parameters, bool)
    assert isinstance(kind.later_metrics, tuple)
    assert strings(kind.later_metrics)
    assert model.planned_epochs is None or model.planned_epochs >= 1
    assert isinstance(model.phase, str) if not hasattr(model, "layer_at") else True  # which asks the trainer
    assert set(model.not_compiled) <= {child for child, _ in model.named_children()}
    assert set(model.restored_arguments) <= arguments
    assert set(kind.older_arguments) <= arguments
    for export in kind.exports:
        assert isinstance(export, Export)
        assert callable(getattr(model, export.method))
        assert set(export.inputs) <= INPUTS.keys()
        assert export.output in OUTPUTS
    checkpoint = checkpoint_of(model)
    assert kind.training_only <= checkpoint.keys()
    assert not kind.training_only & state_of(checkpoint, name).keys()


@pytest.mark.parametrize("name", METHODS)
def test_abilities_have_the_arguments_of_their_protocols(name: str) -> None:
    """isinstance compares names only."""
    kind = getattr(lit_models, name)
    for protocol in PROTOCOLS:
        for ability in (part for part in vars(protocol) if not part.startswith("_")):
            if not hasattr(kind, ability):
                continue
            wanted = list(inspect.signature(getattr(protocol, ability)).parameters.values())
            given = list(inspect.signature(getattr(kind, ability)).parameters.values())
            for one, other in zip(wanted, given, strict=False):
                assert one.kind is one.POSITIONAL_ONLY or one.name == other.name
                assert one.default is one.empty or other.default is not one.empty
            assert all(other.default is not other.empty for other in given[len(wanted) :])


def test_each_protocol_is_some_methods_ability() -> None:
    models = [small_model(title) for title in TITLES.values()]
    assert len(PROTOCOLS) == 6
    for protocol in PROTOCOLS:
        able = [type(model).__name__ for model in models if isinstance(model, protocol)]
        assert 0 < len(able) < len(models), protocol


def test_a_module_that_is_no_method_has_no_facts() -> None:
    assert Method.data.fget is not None
    assert data_of(type("Trainer", (), {})()) is None


class Restoring(Method):
    def __init__(self, width: int = 1, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)

    @property
    def restored_arguments(self) -> tuple[str, ...]:
        return ("width",)


def test_what_a_checkpoint_restores_goes_into_the_next_one() -> None:
    model = Restoring(width=2, rate=0.3)
    model.on_load_checkpoint({"hyper_parameters": {"width": 5, "rate": 0.7}})
    assert dict(model.hparams) == {"width": 5, "rate": 0.3}


def test_means_are_logged_below_their_stage(monkeypatch: Patch) -> None:
    logged: list[Any] = []
    model = Restoring()
    monkeypatch.setattr(model, "log_dict", lambda values, **options: logged.append((values, options)))
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    assert model.log_classification(logits, torch.tensor([0, 0, 0]), "val") is logits
    ((values, options),) = logged
    loss = -sum(float(row[0] - row.exp().sum().log()) for row in logits) / 3
    assert values["val/loss"].item() == pytest.approx(loss)
    assert values["val/accuracy"].item() == pytest.approx(2 / 3)
    assert options == {"batch_size": 3, "sync_dist": True, "prog_bar": True}


def contract_table() -> str:
    """Attributes and properties of ``Method``, and the protocols, as a table in Markdown, from the source."""
    tree = ast.parse(Path(module.__file__).read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    rows = ["| attribute | type | default | meaning |", "| --- | --- | --- | --- |"]
    body = classes["Method"].body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(following, ast.Expr)
            text = inspect.cleandoc(ast.literal_eval(following.value))
            default = "" if node.value is None else f"`{ast.unparse(node.value)}`"
            kind = (
                ast.unparse(node.annotation)
                .removeprefix("ClassVar[")
                .removesuffix("]" * ("ClassVar" in ast.unparse(node.annotation)))
            )
            rows.append(row(ast.unparse(node.target), kind, default, text))
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(one) == "property" for one in node.decorator_list):
            returned = next((part for part in node.body if isinstance(part, ast.Return)), None)
            assert returned is not None
            assert returned.value is not None
            assert node.returns is not None
            constant = isinstance(returned.value, (ast.Constant, ast.Tuple))
            default = f"`{ast.unparse(returned.value)}`" if constant else ""
            rows.append(row(node.name, ast.unparse(node.returns), default, ast.get_docstring(node) or ""))
    rows += ["", "| ability | method | meaning |", "| --- | --- | --- |"]
    for name, node in classes.items():
        if any(ast.unparse(base) == "Protocol" for base in node.bases):
            (function,) = (part for part in node.body if isinstance(part, ast.FunctionDef))
            arguments = ", ".join(
                part.arg for part in function.args.posonlyargs + function.args.args if part.arg != "self"
            )
            rows.append(f"| `{name}` | `{function.name}({arguments})` | {one_line(ast.get_docstring(node) or '')} |")
    return "\n".join(rows) + "\n"


def row(name: str, kind: str, default: str, text: str) -> str:
    return f"| `{name}` | `{kind}` | {default} | {one_line(text)} |".replace(" | None`", " \\| None`").replace(
        "|  |", "| |"
    )


def one_line(text: str) -> str:
    text = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
    return text.replace(":attr:", "")


def test_the_page_shows_the_contract() -> None:
    assert contract_table() in PAGE.read_text(), f"docs/add_a_method.md should hold:\n{contract_table()}"


def test_the_contract_is_short() -> None:
    assert len(Path(module.__file__).read_text().splitlines()) <= 200
