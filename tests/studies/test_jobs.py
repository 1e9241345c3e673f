"""Names, options and commands of jobs."""

import pytest

from studies import jobs
from studies.jobs import Job, make_jobs, parse_seeds, scaled
from studies.recipes import RECIPES
from timm_alfa.training.options.train_args import parse_args


@pytest.mark.parametrize(
    ('text', 'seeds'),
    [
        ('3', [0, 1, 2]),
        ('3-5', [3, 4, 5]),
        ('0,4', [0, 4]),
        ('7,', [7]),
        ('0-1,5', [0, 1, 5]),
        ('0', [0]),
        ('x', None),
        ('', None),
        (',', None),
        ('2-', None),
    ],
)
def test_seeds(text, seeds):
    if seeds is None:
        with pytest.raises(ValueError, match='--seeds'):
            parse_seeds(text)
    else:
        assert parse_seeds(text) == seeds


def test_scale_keeps_milestones_at_their_share():
    options = dict(epochs=200, decay_milestones=[50, 150], warmup_updates=200)
    assert scaled(options, 1) == {}
    assert scaled(options, 0.05) == dict(epochs=10, decay_milestones=[2.5, 7.5])
    assert scaled(options, 0.001) == dict(epochs=1, decay_milestones=[0.25, 0.75])


def test_train_py_parses_the_command_as_the_jobs_options(tmp_path):
    job = Job(RECIPES['cifar10_resnet56s_alfa_step1.5'], 3, 0.05)
    config = parse_args(jobs.train_command(job, tmp_path)[2:])
    assert (config.run.seed, config.schedule.epochs, config.schedule.decay_milestones) == (3, 10, (2.5, 7.5))
    assert config.task_options.step_size == 1.5 / 255
    assert (config.run.output, config.run.experiment, config.run.resume) == (str(tmp_path), job.folder, 'auto')


def test_local_copy_is_found_by_the_name_of_the_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match='cifar10'):
        jobs.local_dataset('hfds/uoft-cs/cifar10', tmp_path)
    (tmp_path / 'cifar10').mkdir()
    assert jobs.local_dataset('hfds/uoft-cs/cifar10', tmp_path) == f'hfds/{tmp_path}/cifar10'
    assert jobs.local_dataset('hfds/uoft-cs/cifar10', None) == 'hfds/uoft-cs/cifar10'
    assert jobs.local_dataset('digits', tmp_path) == 'digits'


def test_published_command_names_no_folder_of_this_machine():
    text = jobs.published_command(Job(RECIPES['small_alfa'], 2, 0.1))
    assert text == (
        'accelerate launch --mixed_precision bf16 train.py --config recipes/small/alfa.yaml --seed 2 '
        '--epochs 6 --decay-milestones 1.5 4.5'
    )


def test_pairs_are_complete_early():
    names = [job.name for job in make_jobs(['smoke'])]
    assert names == ['smoke-s0', 'smoke_alfa-s0', 'smoke-s1', 'smoke_alfa-s1']


def test_recipes_with_the_most_seeds_come_first():
    names = [job.name for job in make_jobs(['small'])]
    assert names[:5] == ['small-s0', 'small_double-s0', 'small_alfa-s0', 'small-s1', 'small_double-s1']
    assert names.index('small_alfa-s5') < names.index('small_noise-s0') < names.index('small_advprop-s0')


def test_each_recipe_has_its_own_number_of_seeds_and_shared_recipes_run_once():
    counts = {
        name: sum(job.recipe.name == name for job in make_jobs(['small']))
        for name in (
            'small',
            'small_alfa',
            'small_double',
            'small_noise',
            'small_moex',
            'small_l_alfa',
            'small_advprop',
        )
    }
    assert counts == dict(
        small=6, small_alfa=6, small_double=6, small_noise=3, small_moex=3, small_l_alfa=2, small_advprop=1
    )
    whole = make_jobs(['table1', 'table2_resnet20s', 'figure2'], seeds=[0])
    assert len({job.name for job in whole}) == len(whole)


def test_unknown_table_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="'tabel1'"):
        make_jobs(['tabel1'])


def test_different_jobs_have_different_names_and_digests():
    recipe = RECIPES['small']
    different = [
        Job(recipe, 0),
        Job(recipe, 1),
        Job(recipe, 0, 0.5),
        Job(recipe, 0, 1.0, 'no'),
        Job(RECIPES['small_alfa'], 0),
    ]
    assert len({job.name for job in different}) == len({job.digest for job in different}) == 5
    assert Job(recipe, 0, 1.0, 'bf16').name == Job(recipe, 0).name == 'small-s0'
