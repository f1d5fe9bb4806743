"""Everything that can be wrong with what is written behind a command, and the words it is answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graft.config.overrides import check_overrides
from graft.errors import ConfigError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below the user's folder, which is the test's own."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(*overrides: str, verb: str = "train", multirun: bool = False, complete: bool = False) -> tuple[str, ...]:
    try:
        check_overrides(verb, overrides, multirun=multirun, complete=complete)
    except ConfigError as error:
        return error.problems
    return ()


def problem(*overrides: str, verb: str = "train", multirun: bool = False, complete: bool = False) -> str:
    (one,) = problems(*overrides, verb=verb, multirun=multirun, complete=complete)
    return one


@pytest.mark.parametrize(
    "overrides",
    [
        ("peft=full", "optimizer.lr=5e-5", "seed=1"),
        ("peft.config.lora_dropout=0.1", "trainer.deterministic=true"),  # no YAML lists these
        ("callbacks=[checkpoint,early_stopping]", "callbacks.early_stopping.patience=5"),
        ("callbacks.lr_monitor=null",),
        ("logger=[]",),
        ("task/loss=focal", "data/split=holdout", "data.split.validation=0.2"),
        ("run={name: a, tags: [x]}", "run.name=b"),
        ("run=logs/runs/2026-01-31_12-00-00_1a2b3c4d", "resume=true"),
        ("+callbacks.mine._target_=my_lab.Mine",),
        ("~data.limit",),
        ("optimizer={betas: [0.9, 0.98]}",),
        ("hydra.verbose=true",),
        ("trust=[my_lab]", "offline=true"),
        ("paths.data=~/sets (old)", "run.name=a=b"),
    ],
)
def test_what_is_right_passes(overrides: tuple[str, ...]) -> None:
    assert problems(*overrides, complete=True) == ()


def test_a_misspelt_option_is_answered_with_the_nearest_and_all_others() -> None:
    assert problem("peft=lroa") == (
        "peft=lroa: peft has no option 'lroa'. Did you mean 'lora'?\n"
        "    The options: biases, full, head_only, last_blocks, lora, norms, regex."
    )


def test_a_misspelt_option_of_a_nested_group_is_answered_likewise() -> None:
    assert problem("task/loss=focl").startswith("task/loss=focl: task/loss has no option 'focl'. Did you mean 'focal'?")


def test_a_misspelt_option_among_several_is_found() -> None:
    answer = problem("callbacks=[checkpoint,progres]")
    assert "callbacks has no option 'progres'. Did you mean 'progress'?" in answer


def test_a_file_that_is_a_part_of_others_is_no_option() -> None:
    answer = problem("data=_loading")
    assert answer.startswith("data=_loading: data has no option '_loading'.")
    assert "The options: ag_news" in answer


def test_an_unknown_model_is_told_how_any_checkpoint_is_chosen() -> None:
    assert problem("model=bert-base-uncased").endswith("Any other checkpoint: model.name=<name or folder>.")


def test_a_misspelt_group_is_answered_with_the_nearest_key_or_group() -> None:
    assert problem("pfet=lora").startswith("pfet=lora: 'train' has no key 'pfet'. Did you mean 'peft'?\n    Its keys")


def test_a_misspelt_nested_group_is_answered_with_the_nearest_group() -> None:
    assert problem("data/splt=keep").startswith(
        "data/splt=keep: there is no group 'data/splt'. Did you mean 'data/split'?"
    )


@pytest.mark.parametrize(
    "written", ["nonsense=1", "+nonsense=1", "++nonsense=1", "nonsense.deep=1", "+nonsense.deep=1"]
)
def test_an_unknown_top_level_key_is_refused_whatever_sign_it_has(written: str) -> None:
    assert problem(written).startswith(f"{written.lstrip('+')}: 'train' has no key 'nonsense'.")


def test_a_misspelt_key_that_is_no_part_is_answered_with_its_neighbours() -> None:
    assert problem("run.nme=x") == "run.nme=x: run has no key 'nme'. Did you mean 'name'?\n    It has: name, tags."


def test_a_misspelt_key_inside_a_mapping_is_found() -> None:
    assert problem("run={name: x, tgs: [a]}").startswith(
        "run={name: x, tgs: [a]}: run has no key 'tgs'. Did you mean 'tags'?"
    )


def test_a_setting_of_a_callback_that_is_not_chosen_says_how_to_choose_it() -> None:
    answer = problem("callbacks=[checkpoint]", "callbacks.early_stopping.patience=3")
    assert answer == (
        "callbacks.early_stopping.patience=3: 'early_stopping' is not among the chosen callbacks (checkpoint). "
        "Choose it: 'callbacks=[checkpoint,early_stopping]'."
    )


def test_a_misspelt_callback_is_answered_with_the_nearest_chosen_one() -> None:
    answer = problem("callbacks=[checkpoint]", "callbacks.chekpoint.save_top_k=3")
    assert answer.endswith("is not among the chosen callbacks (checkpoint). Did you mean 'checkpoint'?")


def test_a_setting_of_an_objective_when_none_is_chosen_says_so() -> None:
    assert "'rdrop' is not among the chosen objective (none)" in problem("objective.rdrop.alpha=1")


def test_several_options_without_a_sweep_say_how_to_sweep() -> None:
    assert problem("peft=head_only,lora") == (
        "peft=head_only,lora: several values need a sweep: graft train -m peft=head_only,lora."
    )


def test_several_options_where_several_may_be_chosen_say_how() -> None:
    assert problem("logger=csv,wandb").endswith(" To choose several, write 'logger=[csv,wandb]'.")


def test_a_comma_in_a_value_says_how_lists_and_texts_are_written() -> None:
    answer = problem("data.label_names=a,b")
    assert "graft train -m data.label_names=a,b." in answer
    assert "A list is written 'data.label_names=[a,b]', a text with a comma \"data.label_names='a,b'\"." in answer


def test_a_list_where_one_option_belongs_says_how_to_sweep() -> None:
    assert problem("peft=[lora,full]") == (
        "peft=[lora,full]: peft takes one option. To try several, sweep over them: graft train -m peft=lora,full."
    )


def test_a_plus_before_a_group_that_is_there_is_not_needed() -> None:
    assert problem("+experiment=sst2") == (
        "+experiment=sst2: 'train' chooses from this group anyway. Write it without the plus sign."
    )


def test_a_sweep_is_right_where_one_was_asked_for_and_its_points_are_checked() -> None:
    assert problems("peft=head_only,lora", "seed=0,1", "optimizer.lr=1e-4,1e-3", multirun=True) == ()
    assert "has no option 'lroa'. Did you mean 'lora'?" in problem("peft=head_only,lroa", "seed=0,1", multirun=True)


def test_a_setting_may_have_its_place_under_another_point_of_a_sweep() -> None:
    swept = ("callbacks=[checkpoint],[checkpoint,early_stopping]", "callbacks.early_stopping.patience=3")
    assert problems(*swept, multirun=True) == ()


@pytest.mark.parametrize("written", ["peft=null", "~peft", "peft=lora,null"])
def test_a_part_that_is_needed_cannot_be_left_out(written: str) -> None:
    answer = problem(written, multirun="," in written)
    assert answer.startswith(f"{written}: peft cannot be left empty like this. 'train' needs one.\n    The options: ")


@pytest.mark.parametrize("written", ["logger=null", "~logger"])
def test_several_are_left_out_with_an_empty_list(written: str) -> None:
    assert problem(written).endswith("To choose none, write 'logger=[]'.")


@pytest.mark.parametrize("written", ["experiment=null", "~debug"])
def test_what_is_not_chosen_need_not_be_left_out(written: str) -> None:
    assert problem(written).endswith("Nothing is chosen there unless you say so; leave it out.")


def test_a_nested_group_is_left_out_with_a_tilde() -> None:
    assert problem("data/split=null").endswith("To choose none, write '~data/split'.")
    assert problems("~data/split") == ()


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("seed=", "'' is no whole number from 0 to 4294967295."),
        ("seed=-1", "'-1' is no whole number from 0 to 4294967295."),
        ("offline=no", "'no' is neither true nor false."),
        ("resume=logs/x", "'logs/x' is neither true nor false."),
        ("trust=my_lab", "'my_lab' is no list. Write [my_lab]."),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(written: str, wrong: str) -> None:
    assert problem(written) == f"{written}: {wrong}"


@pytest.mark.parametrize("written", ["lr", "optimizer.lr", "run.name=[a", "run.name={a"])
def test_what_cannot_be_read_is_shown_with_how_to_write_it(written: str) -> None:
    answer = problem(written)
    assert answer.startswith(f"{written}: this cannot be read (")
    assert answer.endswith("'key=\"a b\"'.")


def test_what_only_one_verb_takes_is_refused_by_another() -> None:
    assert problem("peft=lora", verb="evaluate").startswith(
        "peft=lora: 'evaluate' chooses nothing from the group peft."
    )
    assert problem("inptu=x", verb="predict").startswith("inptu=x: 'predict' has no key 'inptu'. Did you mean 'input'?")


def test_all_problems_come_together_and_each_once() -> None:
    found = problems("peft=lroa", "peft=lroa", "modle=x", "run.nme=y", "seed=a")
    assert [one.partition(":")[0] for one in found] == ["peft=lroa", "modle=x", "run.nme=y", "seed=a"]


def test_problems_that_only_a_signature_shows_come_with_the_others() -> None:
    found = problems("peft=lroa", "optimizer.lrr=1", complete=True)
    assert [one.partition(":")[0] for one in found] == ["peft=lroa", "optimizer.lrr"]
    assert "graft.optim.optimizers.adamw takes no 'lrr'. Did you mean 'lr'?" in found[1]


def test_missing_values_come_with_the_others() -> None:
    found = problems("peft=lroa", "data=csv", "model=custom", complete=True)
    assert [one.partition(":")[0] for one in found] == ["peft=lroa", "data.source.train", "model.name"]


def test_a_missing_value_is_named_with_how_to_give_it() -> None:
    assert problem("data=csv", complete=True) == (
        "data.source.train: a value is needed here. Set data.source.train=..."
    )
    assert problems("data=csv", "data.source.train=a.csv", complete=True) == ()


def test_a_missing_value_of_another_verb_is_explained_by_its_comment() -> None:
    run, given = problems(verb="predict", complete=True)
    assert run == "run: a value is needed here (the run's folder, or its id below paths.logs). Set run=..."
    assert given.startswith("input: a value is needed here (csv, tsv, ")


def test_data_to_evaluate_on_need_not_have_what_only_training_reads() -> None:
    assert problems("run=x", "data=csv", "data.source.test=a.csv", verb="evaluate", complete=True) == ()


def test_values_may_be_missing_where_the_configuration_is_only_looked_at() -> None:
    assert problems("data=csv") == ()
    assert problems(verb="predict") == ()


def test_a_config_file_of_the_users_that_is_broken_is_named(write: Write, tmp_path: Path) -> None:
    path = write("optimizer/mine.yaml", "# Mine.\nlr: [1, 2\n")
    with pytest.raises(ConfigError) as caught:
        check_overrides("train", ["optimizer=mine"], config_dirs=[tmp_path], complete=True)
    assert "no valid YAML" in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_part_of_the_users_that_asks_for_an_unknown_part_is_answered(write: Write, tmp_path: Path) -> None:
    write("experiment/mine.yaml", "# @package _global_\n# Mine.\ndefaults:\n- override /peft: lroa\n")
    with pytest.raises(ConfigError) as caught:
        check_overrides("train", ["experiment=mine", "seed=1"], config_dirs=[tmp_path])
    assert "peft/lroa" in str(caught.value)


def test_a_group_of_the_users_own_is_known(write: Write, tmp_path: Path) -> None:
    write("augment/flip.yaml", "# Flip.\nx: 1\n")
    with pytest.raises(ConfigError) as caught:
        check_overrides("train", ["augment=flip"], config_dirs=[tmp_path])
    assert str(caught.value).startswith("augment=flip: 'train' chooses nothing from the group augment.")


def test_a_primary_config_of_the_users_that_starts_from_ours_takes_what_ours_takes(
    write: Write, tmp_path: Path
) -> None:
    write("mine.yaml", "defaults: [train, _self_]\nseed: 3\n")
    check_overrides("mine", ["peft=full", "optimizer.lr=1e-3", "resume=true"], config_dirs=[tmp_path], complete=True)
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        check_overrides("mine", ["peft=lroa"], config_dirs=[tmp_path])


def test_a_search_path_given_on_the_command_line_adds_options(write: Write, tmp_path: Path) -> None:
    write("optimizer/mine.yaml", "# Mine.\n_target_: torch.optim.SGD\n_partial_: true\nlr: 1\n")
    assert problems(f"hydra.searchpath=[file://{tmp_path}]", "optimizer=mine") == ()
    assert len(problems("optimizer=mine")) == 1
