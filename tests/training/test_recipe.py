"""Recipes: what is read, what is refused, and that all of it is told at once."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest
from transformers import PreTrainedConfig

from retr_hf.errors import RecipeError
from retr_hf.training import strict_yaml
from retr_hf.training.fields import Mismatch, fit, setting
from retr_hf.training.recipe import OneOf, Recipe, builds, describe_schema, load_recipe
from retr_hf.training.settings import SETTINGS, VALIDATORS, DataSettings, RunSettings, TrainingSettings

GOOD = """\
name: pantry
task: finetune
output: runs/{name}/{domain}-{seed}
data:
  domains: [.]
training:
  learning_rate: 1e-3
  mixed_precision: no
"""


class ToyConfig(PreTrainedConfig):
    """A model configuration with a rule across its fields."""

    model_type = "recipe-toy"
    width: int = 8
    heads: int = 2
    dropout: float | int = 0.1
    router: Literal["none", "pathway"] = "none"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")


MODEL = {**SETTINGS, "model": (ToyConfig, ["width", "heads", "dropout", "router"])}


@pytest.fixture
def write(tmp_path):
    def write_recipe(text, name="recipe.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_recipe


def mistakes(path, overrides=(), schema=SETTINGS, validators=(), **options) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, schema, validators, **options)
    return caught.value.problems


def test_values_fill_the_settings(write):
    recipe = load_recipe(write(GOOD), [], SETTINGS, VALIDATORS)
    assert recipe.name == "pantry" and recipe.run.task == "finetune"
    assert recipe["training"].learning_rate == 0.001
    assert recipe["training"].mixed_precision == "no"
    assert recipe["training"].epochs == TrainingSettings().epochs
    assert recipe["evaluation"].cutoffs == [10, 50]
    assert recipe.run.output_folder("Pantry") == "runs/pantry/Pantry-0"


def test_all_mistakes_are_told_at_once(write):
    path = write("""\
name: pantry
task: finetune
output: runs/x
seed: true
data:
  domains: [no/such/folder]
training:
  learning_rte: 1e-3
  batch_size: '512'
  scheduler: cosin
  patience: -1
  max_length: 20
""")
    problems = mistakes(path)
    expected = [
        ("seed (line 4)", "expected a whole number, came true"),
        ("data.domains (line 6)", "no such file or folder: no/such/folder", "scripts/prepare.py"),
        ("training.learning_rte (line 8)", "did you mean training.learning_rate?"),
        ("training.batch_size (line 9)", "expected a whole number, came '512' (text)"),
        ("training.scheduler (line 10)", "expected one of constant, linear, cosine, came cosin; did you mean cosine?"),
        ("training.patience (line 11)", "expected at least 0, came -1"),
        ("training.max_length (line 12)", "did you mean data.max_length?"),
    ]
    assert len(problems) == len(expected)
    for problem, parts in zip(problems, expected, strict=True):
        assert all(part in problem for part in parts), problem


def test_the_report_opens_with_the_file_and_has_a_line_a_mistake(write):
    path = write(GOOD + "  epoch: 3\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["seed=x"], SETTINGS)
    assert str(caught.value).splitlines() == [
        f"{path}: 2 mistakes",
        "  - seed (command line): expected a whole number, came x (text)",
        "  - training.epoch (line 9): unknown key; did you mean training.epochs?",
    ]


def test_missing_required_keys_are_told_with_their_meaning(write):
    problems = mistakes(write("name: x\n"))
    assert [problem.partition(":")[0] for problem in problems] == ["task", "output", "data.domains"]
    assert "folders of prepared domains" in problems[2]


def test_unknown_sections_and_top_level_keys(write):
    path = write(GOOD + "trainig:\n  epochs: 3\nlearning_rate: 1\nzzz: 1\n")
    section, misplaced, unlike_any = mistakes(path)
    assert section == "trainig (line 9): unknown section; did you mean training?"
    assert misplaced == "learning_rate (line 11): unknown key; did you mean training.learning_rate?"
    assert unlike_any.startswith("zzz (line 12): unknown key; known here: name, task,")


def test_a_section_must_be_a_section(write):
    assert mistakes(write(GOOD + "evaluation: 3\n")) == ["evaluation (line 9): expected a section of keys, came 3"]
    assert load_recipe(write(GOOD + "evaluation:\n"), [], SETTINGS)["evaluation"].test is True


def test_duplicate_keys_are_told_with_their_lines(write):
    path = write(GOOD + "  learning_rate: 2e-3\nname: other\n")
    assert mistakes(path) == [
        "training.learning_rate: given twice, in lines 7 and 9; keep one",
        "name: given twice, in lines 1 and 10; keep one",
    ]


class TestOverrides:
    def test_they_win_over_the_file_and_are_read_as_yaml(self, write):
        overrides = [
            "training.learning_rate=5e-4",
            "training.learning_rate=2e-4",
            "evaluation.cutoffs=[1, 5]",
            "data.domains=[., ..]",
            "training.max_steps=null",
            "seed=7",
        ]
        recipe = load_recipe(write(GOOD), overrides, SETTINGS)
        assert recipe["training"].learning_rate == 0.0002
        assert recipe["evaluation"].cutoffs == [1, 5]
        assert recipe["data"].domains == [".", ".."]
        assert recipe["training"].max_steps is None and recipe.run.seed == 7

    def test_malformed_and_unknown_ones_are_told(self, write):
        malformed = ["epochs", "=3", "a.b.c=1", "training={}", "extends=x", "seed=["]
        overrides = [*malformed, "training.epohs=3", "data.domains=."]
        problems = mistakes(write(GOOD), overrides)
        assert len(problems) == len(overrides)
        report = "\n".join(problems)
        for told in [
            "override 'epochs': expected section.key=value or key=value",
            "override '=3': expected section.key=value or key=value",
            "override 'a.b.c=1': expected section.key=value or key=value",
            "override 'training={}': training is a section; write training.key=value",
            "override 'extends=x': extends is said in the file",
            "override 'seed=[': '[' is not a YAML value",
            "training.epohs (command line): unknown key; did you mean training.epochs?",
            "data.domains (command line): expected a list, each element text, came .; write [.]",
        ]:
            assert told in report


class TestExtends:
    def test_keys_given_here_win_and_sections_are_merged(self, write):
        write(GOOD + "  epochs: 3\nexpected: {HR@10: 0.1}\n", "base.yaml")
        path = write("extends: base.yaml\nname: twin\nexpected: {MRR: 0.2}\ntraining:\n  epochs: 4\n")
        recipe = load_recipe(path, ["training.batch_size=2"], SETTINGS)
        assert recipe.name == "twin" and recipe["data"].domains == ["."]
        training = recipe["training"]
        assert (training.epochs, training.learning_rate, training.batch_size) == (4, 0.001, 2)
        assert recipe.run.expected == {"MRR": 0.2}  # a note is replaced, not merged

    def test_it_starts_at_the_folder_of_the_recipe(self, write, tmp_path):
        (tmp_path / "deep").mkdir()
        write(GOOD, "base.yaml")
        path = write("extends: ../base.yaml\n", "deep/recipe.yaml")
        assert load_recipe(path, [], SETTINGS).name == "pantry"

    def test_mistakes_in_the_base_name_its_file(self, write):
        write(GOOD + "  epohs: 3\n", "base.yaml")
        (problem,) = mistakes(write("extends: base.yaml\n"))
        assert problem.startswith("training.epohs (base.yaml line 9): unknown key")

    def test_a_circle_is_told(self, write):
        write("extends: recipe.yaml\n", "base.yaml")
        problems = mistakes(write("extends: base.yaml\n" + GOOD))
        assert problems == ["extends: recipes that extend one another: recipe.yaml -> base.yaml -> recipe.yaml"]

    def test_an_unknown_file_and_a_wrong_type_are_told(self, write):
        (problem,) = mistakes(write("extends: bse.yaml\n" + GOOD))
        assert "bse.yaml: No such file" in problem
        assert mistakes(write("extends: [a]\n" + GOOD)) == ["extends (line 1): expected the path of a recipe, came [a]"]


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "", "just text"])
def test_a_file_that_is_no_recipe_is_one_mistake(write, text):
    assert len(mistakes(write(text))) == 1


def test_a_file_that_does_not_exist_is_one_mistake(tmp_path):
    assert "no.yaml: No such file" in mistakes(tmp_path / "no.yaml")[0]


class TestValidators:
    def test_they_report_beside_the_other_mistakes(self, write):
        overrides = ["training.freeze=backbone", "evaluation.cutoffs=[5]", "data.max_length=0"]
        problems = mistakes(write(GOOD), overrides, validators=VALIDATORS)
        assert len(problems) == 3
        assert problems[0].startswith("data.max_length (command line): expected at least 1, came 0")
        assert problems[1].startswith("training.metric: NDCG@10 is not computed with evaluation.cutoffs [5]")
        assert problems[2].startswith("training.freeze:")

    def test_one_that_reads_a_section_with_a_mistake_is_left_out(self, write):
        problems = mistakes(write(GOOD), ["training.epochs=0", "evaluation.cutoffs=[5]"], validators=VALIDATORS)
        assert problems == ["training.epochs (command line): expected at least 1, came 0"]

    def test_its_own_failure_is_not_hidden(self, write):
        with pytest.raises(KeyError, match="nowhere"):
            load_recipe(write(GOOD), [], SETTINGS, [lambda recipe: recipe["nowhere"]])

    def test_rules_of_the_settings_themselves(self, write):
        problems = mistakes(write(GOOD), ["output=runs/{nme}", "training.metric=NDGC@10", "data.domains=[]"])
        assert problems == [
            "output: expected {name}, {domain} or {seed}, came {nme}",
            "data: domains: expected at least one prepared domain, came an empty list",
            "training: metric: expected HR@k, NDCG@k or MRR, came NDGC@10",
        ]

    def test_a_model_configuration_says_its_own_mistakes(self, write):
        path = write(GOOD + "model:\n  heads: 3\n")
        problems = mistakes(path, ["seed=-1"], MODEL, [builds("model", ToyConfig)])
        assert problems == [
            "seed (command line): expected at least 0, came -1",
            "model: width 8 is not a multiple of heads 3",
        ]


class TestModelSection:
    def test_it_is_a_dict_of_what_was_given(self, write):
        path = write(GOOD + "model:\n  router: pathway\n  dropout: 0\n")
        recipe = load_recipe(path, ["model.width=16"], MODEL, [builds("model", ToyConfig)])
        assert recipe["model"] == {"router": "pathway", "dropout": 0, "width": 16}
        assert load_recipe(write(GOOD), [], MODEL)["model"] == {}

    def test_only_the_named_fields_are_allowed_and_types_hold(self, write):
        path = write(GOOD + "model:\n  architectures: [a]\n  width: 8.5\n  router: pathwy\n")
        problems = mistakes(path, schema=MODEL)
        assert problems == [
            "model.architectures (line 10): unknown key; known here: width, heads, dropout, router",
            "model.width (line 11): expected a whole number, came 8.5",
            "model.router (line 12): expected one of none, pathway, came pathwy; did you mean pathway?",
        ]

    def test_a_name_that_the_configuration_lacks_is_the_callers_mistake(self, write):
        with pytest.raises(TypeError, match="widht"):
            load_recipe(write(GOOD), [], {**SETTINGS, "model": (ToyConfig, ["widht"])})


class TestRoundTrip:
    def test_the_resolved_recipe_is_the_same_recipe(self, write, tmp_path):
        note = "expected:\n  NDCG@10: 0.05\n  commit: 0123456\n  date: 2026-11-21\n"
        path = write(GOOD + "model:\n  dropout: 0.5\n" + note)
        recipe = load_recipe(path, ["training.weight_decay=1e-8", "description='no: 1e-3'"], MODEL)
        recipe.save(tmp_path / "resolved.yaml")
        again = load_recipe(tmp_path / "resolved.yaml", [], MODEL)
        assert again == recipe and again.source != recipe.source
        assert again.run.description == "no: 1e-3" and again["training"].weight_decay == 1e-8
        assert again.run.expected == {"NDCG@10": 0.05, "commit": "0123456", "date": "2026-11-21"}
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []

    def test_it_holds_every_value(self, write):
        resolved = load_recipe(write(GOOD), [], SETTINGS).as_dict()
        assert set(resolved) == {f.name for f in dataclasses.fields(RunSettings)} | set(SETTINGS) - {""}
        assert set(resolved["data"]) == {f.name for f in dataclasses.fields(DataSettings)}

    def test_different_values_are_different_recipes(self, write):
        path = write(GOOD)
        assert load_recipe(path, [], SETTINGS) != load_recipe(path, ["training.epochs=11"], SETTINGS)


def test_paths_are_asked_for_only_where_wanted(write):
    overrides = ["data.domains=[no/such]", "init=me/on-the-hub"]  # what init names, the hall finds out
    assert len(mistakes(write(GOOD), overrides)) == 1
    assert isinstance(load_recipe(write(GOOD), overrides, SETTINGS, check_paths=False), Recipe)


def test_every_setting_is_documented():
    text = describe_schema(MODEL)
    assert "  learning_rate: peak learning rate; a number; default 0.001" in text
    assert "name: the run's name, in folders and result rows; text; required" in text
    assert "  cutoffs: k of HR@k and NDCG@k; a list, each element a whole number; default [10, 50]" in text
    for section in SETTINGS.values():
        assert all(field.metadata["help"] for field in dataclasses.fields(section))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("5E4", 5e4), ("-1.5e+2", -150.0), ("3", 3), ("-3", -3), ("1_000", 1000), (".5", 0.5),
        (".inf", float("inf")), ("010", "010"), ("1:30", "1:30"), ("2026-11-21", "2026-11-21"), ("1.2.3", "1.2.3"),
        ("no", "no"), ("on", "on"), ("true", True), ("null", None), ("none", "none"), ("", None), ("e3", "e3"),
    ],
)  # fmt: skip
def test_plain_scalars_mean_what_they_say(text, value):
    read = strict_yaml.read(f"key: {text}")[0]["key"]
    assert read == value and type(read) is type(value)
    assert strict_yaml.read(strict_yaml.write({"key": value}))[0] == {"key": value}
    assert strict_yaml.read(strict_yaml.write({"key": text}))[0] == {"key": text}  # text that looks like a value


@pytest.mark.parametrize(
    ("value", "annotation", "fitted"),
    [
        (1, float, 1.0), (1, float | int, 1), (None, int | None, None), ([1, 2], list[float], [1.0, 2.0]),
        ([1], tuple[int, ...], (1,)), ("a", Literal["a", "b"], "a"), (True, bool, True), ({"a": 1}, object, {"a": 1}),
    ],
)  # fmt: skip
def test_values_that_fit(value, annotation, fitted):
    result = fit(value, annotation)
    assert result == fitted and type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int), (False, float), (True, int | None), (1, bool), (1, str), ("1", int), (1.0, int), (None, int),
        ([1, True], list[int]), ("a", list[str]), (1, Literal["1"]), (True, Literal[1]), ({}, list),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(value, annotation):
    with pytest.raises(Mismatch, match="expected .*, came "):
        fit(value, annotation)


def test_limits_hold_for_every_element_and_refuse_nan_and_infinity(write):
    @dataclass
    class Limits:
        sizes: list[int] = setting([8], choices=[8, 16], distinct=True)
        share: float = setting(0.5, min=0, max=1)
        rate: float | None = setting(None, above=0)

    (choice, twice, nan, high, infinite) = (
        mistakes(write("a: {}"), [override], {"a": Limits})[0]
        for override in ("a.sizes=[8, 15]", "a.sizes=[16, 8, 16]", "a.share=.nan", "a.share=2", "a.rate=.inf")
    )
    assert choice == "a.sizes (command line): expected one of 8, 16, came 15"
    assert "expected every one once, came 16 twice" in twice and "expected a finite number, came .inf" in infinite
    assert "expected at least 0, came .nan" in nan and "expected at most 1, came 2.0" in high


class TestSystems:
    SYSTEM = "name: x\ndescription: another\nmodel:\n  router: pathway\n"

    def test_it_lies_between_the_recipe_and_the_overrides(self, write):
        path = write(GOOD + "expected: 0.1 with another model\nmodel:\n  width: 16\n  router: none\n")
        system = write(self.SYSTEM + "training:\n  epochs: 7\n", "system.yaml")
        recipe = load_recipe(path, ["training.epochs=8"], MODEL, systems=[system])
        assert recipe["model"] == {"width": 16, "router": "pathway"}
        assert (recipe.name, recipe["training"].epochs, recipe["training"].learning_rate) == ("x", 8, 1e-3)
        assert recipe.run.expected is None  # of another model
        assert recipe.source == f"{path} + {system}"

    def test_it_may_extend_another(self, write):
        write(self.SYSTEM, "base.yaml")
        system = write("extends: base.yaml\nname: y\nmodel:\n  heads: 4\n", "system.yaml")
        recipe = load_recipe(write(GOOD), [], MODEL, systems=[system])
        assert recipe.name == "y" and recipe["model"] == {"router": "pathway", "heads": 4}

    def test_what_it_is_run_on_is_not_its_business(self, write):
        system = write(self.SYSTEM + "seed: 3\ndata:\n  max_length: 9\n", "system.yaml")
        problems = mistakes(write(GOOD), schema=MODEL, systems=[system])
        rule = "a system file gives name, description, model, training and nothing else"
        assert problems == [f"system system.yaml: {place}: {rule}" for place in ("seed (line 5)", "data (line 6)")]

    def test_its_mistakes_name_its_file(self, write):
        system = write("model:\n  rooter: none\n", "system.yaml")
        (problem,) = mistakes(write(GOOD), schema=MODEL, systems=[system])
        assert problem == "model.rooter (system.yaml line 2): unknown key; did you mean model.router?"
        (problem,) = mistakes(write(GOOD), schema=MODEL, systems=[write("name: x\n", "system.yaml")])
        assert problem.startswith("system system.yaml: expected a model section")
        (problem,) = mistakes(write(GOOD), schema=MODEL, systems=["no/such.yaml"])
        assert "no/such.yaml: No such file" in problem


@dataclass
class Square:
    side: int = 1


@dataclass
class Circle:
    side: int = 1
    radius: float = 2.0


SHAPES = {**SETTINGS, "model": OneOf("kind", "square", {"square": (Square, ["side"]), "circle": (Circle, ["radius"])})}


def test_a_key_chooses_the_dataclass_of_its_section(write):
    path = write(GOOD + "model:\n  kind: circle\n  radius: 3\n")
    assert load_recipe(path, [], SHAPES)["model"] == {"kind": "circle", "radius": 3.0}
    assert load_recipe(write(GOOD + "model:\n  side: 3\n"), [], SHAPES)["model"] == {"side": 3}
    again = load_recipe(write(load_recipe(path, [], SHAPES).to_yaml(), "again.yaml"), [], SHAPES)
    assert again == load_recipe(path, [], SHAPES)


def test_the_chosen_dataclass_is_as_strict_as_any(write):
    path = write(GOOD + "model:\n  kind: circle\n  side: 3\n")
    assert mistakes(path, schema=SHAPES) == ["model.side (line 11): unknown key; known here: radius"]
    path = write(GOOD + "model:\n  kind: cirle\n")
    told = "model.kind (line 10): expected one of square, circle, came cirle; did you mean circle?"
    assert mistakes(path, schema=SHAPES) == [told]
    assert mistakes(path, ["model.kind=[1]"], schema=SHAPES)[0].startswith("model.kind (command line): expected one of")


def test_help_tells_every_choice():
    told = describe_schema(SHAPES)
    assert "model (kind: square):\n  side: a whole number; default 1\nmodel (kind: circle):\n  radius" in told
