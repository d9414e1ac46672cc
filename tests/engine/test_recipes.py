"""What children are made with, as the settings say."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from engine.config import RunConfig
from engine.errors import ConfigError
from engine.recipes import ConfiguredRecipes, RunSeeds, make_selection
from populations.genome import Genome, Lineage
from populations.manager import Birth
from populations.network import NetworkSpec
from populations.plans import FineTune, Mutator
from populations.population import Member, Record
from strategies.crossover import crossovers
from strategies.mutation import GaussianMutation, Mutation, mutations
from strategies.operator import CrossoverOperator

INHERITED = FineTune("teachers", 1, 1e-3, 1.0, 0.0, (0.5, 0.3, 0.2))


def make_config(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(sections)


def evolution(**settings: Any) -> RunConfig:
    return make_config(evolution=settings)


def member(finetune: FineTune = INHERITED, mutation: Mutator | None = None) -> Member:
    spec = NetworkSpec((1,), (), 2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in spec.shapes.items()}
    genome = Genome.from_weights(spec, weights, Lineage("child", 1, 0))
    return Member(genome, finetune, Record.of((1.0,)), mutation)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_equal_streams_draw_equal_recipes() -> None:
    recipes = ConfiguredRecipes(make_config(), 3)

    def draw(seed: int) -> tuple[Any, ...]:
        generator = rng(seed)
        recipe = recipes.draw(1, 0, generator)
        return recipe.operator.name, recipes.finetune(recipe, [member()], generator)

    assert [draw(seed) for seed in range(20)] == [draw(seed) for seed in range(20)]
    assert len({draw(seed) for seed in range(20)}) == 20


# --- operators, mutation and selection ---------------------------------------------------------


def test_recipes_are_drawn_in_proportion_to_their_weights() -> None:
    config = make_config(
        evolution={
            "recipes": [
                {"operator": "weighted", "params": {"low": 0.5, "high": 0.5}, "weight": 3},
                {"operator": "clone", "align": "none"},
            ]
        }
    )
    recipes = ConfiguredRecipes(config, 2)
    generator = rng()
    drawn = [recipes.draw(1, 0, generator) for _ in range(1000)]
    weighted = [recipe for recipe in drawn if recipe.operator.name == "weighted"]
    # 750 expected, standard deviation sqrt(1000 * 3/4 * 1/4) = 13.7
    assert abs(len(weighted) - 750) < 4 * 13.7
    assert weighted[0].operator.params["low"] == 0.5
    assert (weighted[0].n_parents, weighted[0].align) == (2, "auto")
    clone = next(recipe for recipe in drawn if recipe.operator.name == "clone")
    assert (clone.n_parents, clone.align) == (1, "none")
    assert clone.mutation is not None
    assert clone.mutation.name == "gaussian"


def test_mutation_can_be_switched_off() -> None:
    recipes = ConfiguredRecipes(make_config(evolution={"mutation": None}), 2)
    assert recipes.draw(1, 0, rng()).mutation is None


def test_controls_are_a_clone_and_a_fresh_network_without_mutation() -> None:
    clone, fresh = ConfiguredRecipes(make_config(), 2).controls()
    assert (clone.operator.name, clone.n_parents) == ("clone", 1)
    assert (fresh.operator.name, fresh.n_parents) == ("fresh", 0)
    for control in (clone, fresh):
        assert (control.align, control.mutation) == ("none", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recipes": [{"operator": "layer"}, {"operator": "weigthed"}]},
            r"evolution\.recipes\[1\]: no crossover named 'weigthed'\. Did you mean 'weighted'\?",
        ),
        (
            {"recipes": [{"operator": "weighted", "params": {"lwo": 0.1}}]},
            r"evolution\.recipes\[0\]: .*no parameter 'lwo'\. Did you mean 'low'\?",
        ),
        (
            {"recipes": [{"operator": "weighted", "params": {"low": 0.9, "high": 0.1}}]},
            r"evolution\.recipes\[0\]: .*low \(0\.9\) must not be above high",
        ),
        (
            {"mutation": {"name": "gausian"}},
            r"evolution\.mutation: no mutation named 'gausian'\. Did you mean 'gaussian'\?",
        ),
        (
            {"recipes": [{"operator": ["weighted", "unit"], "params": {"low": 0.1}}]},
            r"evolution\.recipes\[0\]: params are given to every operator of the list, but "
            r"crossover 'unit' has no parameter 'low'\.",
        ),
        (
            {"mutation": {"params": {"share": 2}}},
            r"evolution\.mutation: .*share must be a number in \[0, 1\], not 2",
        ),
    ],
)
def test_a_mistyped_operator_or_mutation_is_named_with_a_suggestion(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(evolution(**settings), 2)


def test_selection_is_made_with_its_parameters() -> None:
    config = make_config(evolution={"selection": {"name": "tournament", "params": {"size": 5}}})
    selection = make_selection(config)
    assert (selection.name, selection.params) == ("tournament", {"size": 5})


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"name": "turnament"}, "no selection named 'turnament'. Did you mean 'tournament'?"),
        ({"params": {"size": 0}}, "size must be a whole number of at least 1, not 0"),
    ],
)
def test_a_mistyped_selection_is_named_with_a_suggestion(
    selection: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_selection(make_config(evolution={"selection": selection}))
    assert str(caught.value).startswith("evolution.selection: ")
    assert message in str(caught.value)


# --- combinations ------------------------------------------------------------------------------


def descriptions(config: RunConfig) -> list[tuple[Any, ...]]:
    table = ConfiguredRecipes(config, 2).table()
    assert [row.recipe for row in table] == list(range(len(table)))
    return [(row.operator, row.align, row.finetune, row.rescale, row.weight) for row in table]


def test_lists_make_a_recipe_of_every_combination_that_share_the_weight() -> None:
    config = make_config(
        finetune_presets={"short": {"steps": 5}},
        evolution={
            "recipes": [
                {
                    "operator": ["weighted", "unit"],
                    "align": ["auto", "none"],
                    "finetune": ["default", "short"],
                    "weight": 4,
                },
                {"operator": "layer", "rescale": True},
            ]
        },
    )
    assert descriptions(config) == [
        ("weighted", "auto", "default", False, 0.5),
        ("weighted", "auto", "short", False, 0.5),
        ("weighted", "none", "default", False, 0.5),
        ("weighted", "none", "short", False, 0.5),
        ("unit", "auto", "default", False, 0.5),
        ("unit", "auto", "short", False, 0.5),
        ("unit", "none", "default", False, 0.5),
        ("unit", "none", "short", False, 0.5),
        ("layer", "auto", "default", True, 1.0),
    ]
    shares = [row.share for row in ConfiguredRecipes(config, 2).table()]
    assert shares == pytest.approx([0.1] * 8 + [0.2])


def test_params_of_a_list_are_those_of_every_operator() -> None:
    entry = {"operator": ["unit", "layer"], "params": {"share": 0.25}}
    table = ConfiguredRecipes(evolution(recipes=[entry]), 2).table()
    assert [row.operator_params["share"] for row in table] == [0.25, 0.25]


def test_a_recipe_has_its_own_training() -> None:
    config = make_config(
        finetune={"steps": 30, "hard_weight": 0.5},
        finetune_presets={"short": {"steps": 5, "target": "better_parent"}},
        evolution={
            "draw": "grid",
            "recipes": [{"operator": "unit", "finetune": ["default", "short"]}],
        },
    )
    recipes = ConfiguredRecipes(config, 3)
    drawn = [recipes.draw(1, index, rng()) for index in range(2)]
    assert [recipe.preset for recipe in drawn] == ["default", "short"]
    trained = [recipes.finetune(recipe, [member()], rng()) for recipe in drawn]
    assert [(f.steps, f.target, f.hard_weight) for f in trained] == [
        (30, "teachers", 0.5),
        (5, "better_parent", 0.5),
    ]
    clone, _ = recipes.controls()
    assert recipes.finetune(clone, [member()], rng()) == trained[0]


# --- who gets which recipe ---------------------------------------------------------------------


def test_a_grid_goes_on_where_the_generation_before_it_ended() -> None:
    recipes = ConfiguredRecipes(evolution(draw="grid", children=6), 2)  # of 4 recipes
    numbers = [[recipes.draw(g, i, rng()).number for i in range(6)] for g in (1, 2, 3)]
    assert numbers == [[0, 1, 2, 3, 0, 1], [2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 0, 1]]


def test_a_bandit_learns_from_all_children_but_the_lost_ones() -> None:
    bandit = {"discount": 0.5, "explore": 0.2}
    recipes = ConfiguredRecipes(evolution(draw="bandit", bandit=bandit), 2)
    recipes.learn(
        [
            Birth(0, "ok", 3.0),
            Birth(1, "ok", -1.0),
            Birth(0, "lost", None),
            Birth(1, "failed", None),
            Birth(0, "ok", 5.0),
        ]
    )
    # Ranks 1, 0 and 2 of 3: rewards 0.5, 0 and 1; the failed child gets 0.
    first, second, third, _ = recipes.table()
    assert (first.births, first.ok, first.mean_improvement, first.best_improvement) == (3, 2, 4, 5)
    assert (first.mean_reward, first.alpha, first.beta) == (0.75, 2.5, 1.5)
    assert first.expected_reward == 2.5 / 4
    assert (second.births, second.ok, second.mean_improvement) == (2, 1, -1)
    assert (second.mean_reward, second.alpha, second.beta) == (0, 1, 3)
    assert (third.births, third.mean_improvement, third.mean_reward) == (0, None, None)
    assert (third.alpha, third.beta) == (1, 1)
    assert first.share > third.share > second.share > 0.2 / 4
    recipes.learn([Birth(2, "ok", 1.0)])
    first, second, third, _ = recipes.table()
    assert (first.alpha, first.beta, third.alpha, third.beta) == (1.75, 1.25, 1.5, 1.5)
    assert (first.births, first.mean_reward) == (3, 0.75)  # which is not discounted


def test_a_mix_has_rewards_but_no_posteriors() -> None:
    recipes = ConfiguredRecipes(make_config(), 2)
    recipes.learn([Birth(0, "ok", 3.0), Birth(1, "ok", -1.0)])
    first = recipes.table()[0]
    assert (first.mean_reward, first.alpha, first.beta, first.expected_reward) == (
        *(1, None),
        *(None, None),
    )


def test_a_bandit_draws_what_it_has_learned() -> None:
    recipes = ConfiguredRecipes(evolution(draw="bandit", bandit={"explore": 0.0}), 2)
    for _ in range(20):
        recipes.learn([Birth(2, "ok", 9.0), *(Birth(i, "ok", 0.0) for i in (0, 1, 3))])
    drawn = [recipes.draw(1, i, rng(i)).number for i in range(100)]
    assert drawn.count(2) > 90


# --- what there will not be --------------------------------------------------------------------


class KinCrossover(CrossoverOperator):
    """Asks for an ancestor."""

    name = "kin"
    needs = ("ancestor",)

    def cross(self, parents: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("never crossed")


class CrowdCrossover(KinCrossover):
    """Asks for a crowd."""

    name = "crowd"
    n_parents = 17
    needs = ()


@pytest.fixture
def more_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {**crossovers._classes, "kin": KinCrossover, "crowd": CrowdCrossover}
    monkeypatch.setattr(crossovers, "_classes", classes)


@pytest.mark.usefixtures("more_operators")
def test_operators_that_need_what_there_will_not_be_are_refused() -> None:
    entry = {"operator": ["unit", "kin"]}
    config = make_config(
        evolution={"recipes": [{"operator": "layer"}, entry]},
        distillation={"ancestor": "independent"},
    )
    message = (
        r"evolution\.recipes\[1\]: kin needs parents with a common ancestor, but "
        r"distillation\.ancestor is independent; set it to shared"
    )
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(config, 2).check()
    ConfiguredRecipes(evolution(recipes=[entry]), 2).check()  # shared is the default


@pytest.mark.usefixtures("more_operators")
@pytest.mark.parametrize(
    ("population", "students", "few"),
    [(16, 32, r"evolution\.population is 16"), (32, 16, r"distillation\.students is 16")],
)
def test_operators_that_need_more_parents_than_there_will_be_are_refused(
    population: int, students: int, few: str
) -> None:
    settings = {"recipes": [{"operator": "crowd"}], "elites": 2}

    def recipes(population: int, students: int) -> ConfiguredRecipes:
        config = make_config(
            evolution=settings | {"population": population}, distillation={"students": students}
        )
        return ConfiguredRecipes(config, 2)

    message = rf"recipes\[0\]: crowd needs 17 parents, but {few}; raise it"
    with pytest.raises(ConfigError, match=message):
        recipes(population, students).check()
    recipes(17, 17).check()


@pytest.mark.parametrize("align", ["weights", "activations", ["auto", "weights"]])
def test_an_alignment_that_leaves_the_ancestor_is_refused(align: Any) -> None:
    recipes = [{"operator": "layer", "align": align}, {"operator": ["ties", "unit"]}]
    ConfiguredRecipes(evolution(recipes=recipes), 2).check()
    recipes[1]["align"] = align
    message = (
        r"evolution\.recipes\[1\]\.align is (weights|activations), but ties needs parents in the "
        "order of units of their common ancestor, which that changes; use auto or none"
    )
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(evolution(recipes=recipes), 2).check()


@pytest.mark.parametrize("name", ["clone", "fresh"])
def test_children_of_fewer_than_two_parents_cannot_be_rescaled(name: str) -> None:
    entry = {"operator": ["unit", name], "rescale": True}
    message = (
        rf"evolution\.recipes\[0\]\.rescale is true, but {name} takes . parents, and only "
        "children of two or more are rescaled; set it to false"
    )
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(evolution(recipes=[entry]), 2).check()


@pytest.mark.parametrize("weight", [5e-324, 9e-7, 1.1e6, 1e308])
def test_weights_that_would_drown_the_others_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        evolution(recipes=[{"operator": "unit", "weight": weight}])
    evolution(recipes=[{"operator": "unit", "weight": w} for w in (1e-6, 1e6)])


def test_networks_from_scratch_beside_operators_that_need_an_ancestor_are_noted() -> None:
    def notes(*operators: str) -> list[str]:
        return ConfiguredRecipes(evolution(recipes=[{"operator": [*operators]}]), 2).notes()

    assert notes("ties", "unit") == notes("fresh", "unit") == []
    assert notes("ties", "fresh", "dare", "unit") == [
        "networks from scratch (fresh) have no ancestor in common with others: where they become "
        "parents, children of dare, ties fail"
    ]


# --- self-adaptation ---------------------------------------------------------------------------


class StepsMutation(Mutation):
    """Has no step size."""

    name = "steps"

    def mutate(self, child: Any, rng: np.random.Generator) -> Any:
        raise AssertionError("never mutated")


def adapted(adapt: float, parent: Mutator | None, seed: int, **params: Any) -> Mutator:
    config = evolution(mutation={"adapt": adapt, "params": params})
    recipes = ConfiguredRecipes(config, 2)
    generator = rng(seed)
    recipe = recipes.draw(1, 0, generator)
    mutation = recipes.mutation(recipe, [member(mutation=parent), member()], generator)
    assert mutation is not None
    return mutation


def test_the_step_size_is_the_parents_times_a_log_normal_factor() -> None:
    parent = GaussianMutation(scale=0.2, share=0.9)
    mutants = [adapted(0.3, parent, seed, scale=0.05, share=0.5) for seed in range(500)]
    factors = np.log([mutant.params["scale"] / 0.2 for mutant in mutants])
    assert stats.kstest(factors / 0.3, "norm").pvalue > 0.001
    assert {mutant.params["share"] for mutant in mutants} == {
        0.5
    }  # only the step size is inherited


def test_the_step_size_of_a_students_child_starts_from_the_configured_one() -> None:
    sizes = [adapted(0.3, None, seed, scale=0.05).params["scale"] for seed in range(500)]
    assert stats.kstest(np.log(np.array(sizes) / 0.05) / 0.3, "norm").pvalue > 0.001


def test_without_adaptation_the_mutation_is_the_configured_one_and_costs_no_number() -> None:
    recipes = ConfiguredRecipes(make_config(), 2)
    generator, other = rng(), rng()
    recipe = recipes.draw(1, 0, generator)
    parent = member(mutation=GaussianMutation(scale=7.0))
    mutation = recipes.mutation(recipe, [parent], generator)
    assert mutation is recipe.mutation
    assert mutation is not None
    assert mutation.params["scale"] == GaussianMutation().scale
    other.random()
    assert generator.random() == other.random()


def test_controls_are_not_mutated_whatever_is_adapted() -> None:
    recipes = ConfiguredRecipes(evolution(mutation={"adapt": 0.5}), 2)
    for control in recipes.controls():
        assert recipes.mutation(control, [member(mutation=GaussianMutation())], rng()) is None


def test_step_sizes_stay_finite() -> None:
    size: Mutator = GaussianMutation(scale=1e300)
    for seed in range(60):
        size = adapted(10, size, seed)
        assert math.isfinite(size.params["scale"])


def test_a_mutation_without_a_step_size_cannot_be_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutations, "_classes", {**mutations._classes, "steps": StepsMutation})
    message = (
        r"evolution\.mutation\.adapt is 0\.1, but the mutation steps has no step size to adapt; "
        "set it to 0, or choose another mutation"
    )
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(evolution(mutation={"name": "steps", "adapt": 0.1}), 2)
    ConfiguredRecipes(evolution(mutation={"name": "steps"}), 2)


def test_a_step_size_of_zero_cannot_be_adapted() -> None:
    mutation: dict[str, Any] = {"adapt": 0.1, "params": {"scale": 0}}
    message = "the step size scale of the mutation gaussian is 0, and must be above 0 to adapt"
    with pytest.raises(ConfigError, match=message):
        ConfiguredRecipes(evolution(mutation=mutation), 2)
    ConfiguredRecipes(evolution(mutation=mutation | {"adapt": 0}), 2)


# --- streams -----------------------------------------------------------------------------------


def test_streams_of_a_run_differ_by_generation_and_child() -> None:
    seeds = RunSeeds(7)
    births = {seeds.birth(g, i) for g in range(5) for i in range(5)}
    draws = {float(seeds.selection(g, i).random()) for g in range(5) for i in range(5)}
    assert len(births) == len(draws) == 25
    assert RunSeeds(8).birth(0, 0) not in births
    assert seeds.selection(1, 2).random() == RunSeeds(7).selection(1, 2).random()
