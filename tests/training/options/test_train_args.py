"""From flags and YAML to options: what is accepted, and all errors at once."""

import dataclasses
import string
import warnings

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from timm_alfa.errors import AlfaWarning, ConfigError
from timm_alfa.tasks import TASKS
from timm_alfa.training.options.config import DIGITS_DEFAULTS, GROUPS
from timm_alfa.training.options.other_flags import INSTEAD, MISSING
from timm_alfa.training.options.train_args import all_options, make_parser, parse_args


def errors_of(*argv):
    with pytest.raises(ConfigError) as caught:
        parse_args(list(argv))
    return caught.value.errors


def test_keys_of_options_are_unique():
    keys = [item.key for item in all_options()]
    assert len(keys) == len(set(keys))
    assert {field.name for cls in GROUPS.values() for field in dataclasses.fields(cls)} <= set(keys)


def test_command_line_beats_yaml_beats_defaults(tmp_path):
    file = tmp_path / 'recipe.yaml'
    file.write_text(
        'lr: 0.2\nepochs: 7\nalfa-step-size: 0.5/255\ndata_dir: /some\ndecay_milestones: [2, 5]\nenvironment: {a: 1}\n'
    )
    config = parse_args(['--config', str(file), '--epochs', '9'])
    assert (config.optim.lr, config.epochs, config.optim.momentum) == (0.2, 9, 0.9)
    assert config.task_options.step_size == 0.5 / 255
    assert config.schedule.decay_milestones == (2.0, 5.0)


@pytest.mark.parametrize(
    ('argv', 'group', 'expected'),
    [
        (['--torchcompile'], 'model', {'torchcompile': 'inductor'}),
        (['--torchcompile', 'eager'], 'model', {'torchcompile': 'eager'}),
        (['--no-filter-bias-and-bn'], 'optim', {'filter_bias_and_bn': False}),
        (
            ['--model-kwargs', 'output_stride=1', 'act_layer=x', 'channels=(1,2)'],
            'model',
            {'model_kwargs': {'output_stride': 1, 'act_layer': 'x', 'channels': (1, 2)}},
        ),
        (
            ['--decay-milestones', '50', '150', '--sched', 'multistep', '--epochs', '200'],
            'schedule',
            {'decay_milestones': (50.0, 150.0)},
        ),
        (['-b', '64'], 'data', {'batch_size': 64}),
        (['--log-with', 'wandb', 'tensorboard'], 'run', {'log_with': ('wandb', 'tensorboard')}),
    ],
)
def test_spellings(argv, group, expected):
    chosen = getattr(parse_args(argv), group)
    assert {key: getattr(chosen, key) for key in expected} == expected


@pytest.mark.parametrize('text', ['false', 'False', 'no', 'off'])
def test_yaml_and_the_command_line_read_mappings_alike(text, tmp_path):
    file = tmp_path / 'options.yaml'
    file.write_text(f'opt: lamb\nopt_kwargs: {{trust_clip: {text}, max_grad_norm: 1e-1, always_adapt: "{text}"}}\n')
    words = [f'trust_clip={text}', 'max_grad_norm=1e-1', f'always_adapt={text}']
    expected = {'trust_clip': False, 'max_grad_norm': 0.1, 'always_adapt': False}
    assert parse_args(['--config', str(file)]).optim.opt_kwargs == expected
    assert parse_args(['--opt', 'lamb', '--opt-kwargs', *words]).optim.opt_kwargs == expected


def test_the_home_folder_is_put_in_for_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'x.yaml').write_text("output: ~/runs\nclass_map: '~/map'\ndata_dir: ~/data\nexperiment: a~b\n")
    config = parse_args(['--config', '~/x.yaml', '--initial-checkpoint=~/w', '--model', 'local-dir:~/m'])
    home = str(tmp_path)
    assert (config.run.output, config.data.class_map) == (f'{home}/runs', f'{home}/map')
    assert (config.data.data_dir, config.run.experiment) == (f'{home}/data', 'a~b')
    assert (config.model.initial_checkpoint, config.model.model) == (f'{home}/w', f'local-dir:{home}/m')
    assert "--experiment is '~'" in errors_of('--experiment', '~')[0]


def test_only_digits_have_their_own_defaults():
    digits, other = parse_args([]), parse_args(['--data-dir', '/somewhere'])
    assert digits.is_digits and digits.epochs == DIGITS_DEFAULTS['epochs']
    assert not other.is_digits and other.epochs == 200 and other.optim.lr is None and other.data.batch_size == 128
    assert parse_args(['--epochs', '3']).epochs == 3


def test_tasks_share_a_prefix_and_keep_their_own_defaults():
    assert parse_args([]).task_options.blocks == 'last'
    assert parse_args(['--task', 'l_alfa']).task_options.blocks == 'units:9'
    assert parse_args(['--alfa-step-size', '0.01,1/255']).task_options.step_size == (0.01, 1 / 255)
    assert parse_args(['--alfa-step-size', '1/255']).task_options.step_size == 1 / 255
    assert parse_args(['--task', 'l_alfa', '--alfa-blocks', 'all', '--alfa-gamma', '0.1']).task_options.gamma == 0.1


def test_all_errors_come_in_one_message():
    found = errors_of(
        'stray',
        '--model',
        'resnet20x',
        '--epochs',
        'many',
        '--opt',
        'sdg',
        '--alfa-step',
        '3',
        '--momentum',
        '2',
        '--task',
        'alfa',
        '--alfa-norm',
        'l7',
        '--checkpoint-every',
        'often',
    )
    text = '\n'.join(found)
    for part in (
        "'--alfa-step'. Did you mean '--alfa-steps'",
        "unexpected 'stray'",
        "--epochs is 'many': it must be a whole number",
        '--momentum is 2',
        "unknown --alfa-norm 'l7'",
        "--checkpoint-every is 'often'",
    ):
        assert part in text, part
    text = '\n'.join(errors_of('--model', 'resnet20x', '--opt', 'sdg', '--mean', '0.5', '0.5', '--in-chans', '3'))
    for part in (
        "unknown model 'resnet20x'. Did you mean 'resnet20s'",
        "unknown optimizer 'sdg'",
        '--mean has 2 values',
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ('argv', 'part'),
    [
        (['--task', 'afla'], "unknown task 'afla'. Did you mean 'alfa'?"),
        (['--alfa-gamma', '1'], "--alfa-gamma is an option of --task l_alfa; the task here is 'alfa'."),
        (['--task', 'standard', '--alfa-blocks', 'last'], 'is an option of --task alfa or --task l_alfa'),
        (['--model', 'me/net'], "write 'local-dir:me/net' or 'hf-hub:me/net'"),
        (['--model', 'ftp:me/net'], "Unknown model source 'ftp'"),
        (['--model', 'resnet18.no_such_tag'], "unknown model 'resnet18.no_such_tag'"),
        (['--warmup-epochs', '2', '--warmup-updates', '9'], 'pass only one of them'),
        (['--warmup-epochs', '2', '--warmup-updates', '0'], 'pass only one of them'),
        (['--decay-milestones', '5', '3'], 'increasing epochs'),
        (['--experiment', '../up'], "--experiment is '../up'"),
        (['--freeze-bn', '--sync-bn'], 'cannot be combined'),
        (['--lr', 'nan'], 'finite'),
        (['--lr'], 'expected one argument'),
        (['--config', '/no/such.yaml'], 'cannot be read'),
        (['--model-kwargs', 'depth'], "'depth': write name=value"),
        (['--model-kwargs', 'channels=[4,8'], "'channels=[4,8', which is not a Python literal"),
        (['--model-kwargs', 'a=1', 'a=2'], "--model-kwargs has 'a' twice"),
        (['--model-kwargs', 'num_classes=5'], "--model-kwargs has 'num_classes': use --num-classes."),
        (['--model-kwargs', 'drop_rate=0.2'], "--model-kwargs has 'drop_rate': use --drop."),
        (['--opt', 'adamw', '--opt-kwargs', 'eps=1e-3'], "--opt-kwargs has 'eps': use --opt-eps."),
        (['--opt-kwargs', 'nesterov=flase'], "'nesterov', which is 'flase': it must be true or false."),
        (['--opt', 'lamb', '--opt-kwargs', 'max_grad_norm=x'], "'max_grad_norm', which is 'x': it must be a number."),
        (['--epo', '3'], "unknown option '--epo'. Did you mean '--epochs'?"),
        (['--modle', 'x'], "unknown option '--modle'. Did you mean '--model'?"),
        (['--amp'], "unknown option '--amp'. Use `accelerate launch --mixed_precision bf16`"),
        (['--dist-bn', 'reduce'], 'running statistics are averaged over all processes'),
        (['--eval-metric', 'top5'], "unknown --eval-metric 'top5'. Did you mean 'top1'?"),
        (['--jsd-loss'], "an option of timm's train.py that does not exist here: leave it out"),
        (['--learning-rate', '1'], 'Use --lr.'),
        (['--bce-sum'], 'belongs to --bce-loss'),
        (['--torchcompile', 'inducter'], "unknown backend of torch.compile 'inducter'. Did you mean 'inductor'?"),
        (['--loader', 'memory', '--aa', 'rand-m9'], "needs timm's transforms"),
    ],
)
def test_errors(argv, part):
    assert any(part in line for line in errors_of(*argv)), errors_of(*argv)


@pytest.mark.parametrize('flag', ['--wrong', '--patient-epochs', '--gpus'])
def test_no_far_fetched_guess(flag):
    (line,) = errors_of(flag)
    assert line == f"unknown option '{flag}'. `train.py --help` lists every option."


def test_hints_are_for_flags_that_do_not_exist():
    flags = {item.spelling for item in all_options()}
    assert flags.isdisjoint({*INSTEAD, *MISSING}) and not MISSING & INSTEAD.keys()


def test_a_file_of_timms_options_gets_the_same_hints(tmp_path):
    file = tmp_path / 'args.yaml'
    file.write_text('dist_bn: reduce\n')
    assert 'Leave it out: running statistics' in errors_of('--config', str(file))[0]


def test_a_name_of_this_zoo_is_a_model():
    assert parse_args(['--model', 'resnet50.alfa_in1k']).model.model == 'resnet50.alfa_in1k'


def test_errors_of_yaml_name_the_file(tmp_path):
    file = tmp_path / 'recipe.yaml'
    file.write_text('epoch: 3\nlr: fast\n')
    found = '\n'.join(errors_of('--config', str(file)))
    assert f"unknown option 'epoch' in {file}. Did you mean 'epochs'?" in found
    assert f"'lr' in {file} is 'fast'" in found
    for text, part in (('- a\n', "no 'option: value' lines"), ('a: [', 'not valid YAML')):
        file.write_text(text)
        assert any(part in line for line in errors_of('--config', str(file)))


def test_errors_of_a_runs_options_name_the_run(tmp_path):
    file = tmp_path / 'args.yaml'
    file.write_text('a: [')
    (line,) = errors_of('--resume', str(tmp_path))
    assert line.startswith(f"--resume takes its options from '{file}', which cannot be used: line 1 is not valid YAML")


@pytest.mark.parametrize(
    ('argv', 'part'),
    [
        (['--model-ema-decay', '0.9'], 'without --model-ema'),
        (['--clip-mode', 'agc'], 'without --clip-grad'),
        (['--data-dir', '/d', '--decay-milestones', '50', '250'], '250 is never reached in 200 epochs'),
        (['--lr', '1', '--lr-base', '2'], 'together with --lr'),
        (
            ['--data-dir', '/d', '--epochs', '6', '--mixup', '0.2', '--mixup-off-epoch', '6'],
            '6 is never reached in 6 epo',
        ),
        (['--resume', '/some/run', '--experiment', 'other'], '--experiment has no effect with --resume RUN'),
        (['--linear-probe', '--layer-decay', '0.7'], '--layer-decay has no effect with --linear-probe'),
        (['--linear-probe', '--clip-grad', '1', '--clip-mode', 'agc'], '--clip-grad has no effect with --linear-probe'),
    ],
)
def test_options_without_effect_warn(argv, part):
    with pytest.warns(AlfaWarning, match=part):
        parse_args(argv)


def test_the_defaults_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        parse_args([])
        parse_args(['--data-dir', '/d'])


def test_saved_options_are_a_config(tmp_path):
    """args.yaml's options, given by --config, are the same options."""
    first = parse_args(
        [
            '--task',
            'l_alfa',
            '--decay-milestones',
            '1',
            '2',
            '--sched',
            'multistep',
            '--model-kwargs',
            'output_stride=1',
        ]
    )
    file = tmp_path / 'args.yaml'
    file.write_text(yaml.safe_dump(first.flat()))
    assert parse_args(['--config', str(file)]).flat() == first.flat()


def test_help_has_a_line_for_every_option():
    text = make_parser().format_help()
    for item in all_options():
        assert item.spelling in text
        assert item.field.metadata['help'].split()[0] in text


@pytest.mark.parametrize('value', ['5', '[bf16]', '{a: 1}', 'true', 'bf17'])
def test_a_precision_that_accelerate_does_not_have_is_refused(tmp_path, value):
    file = tmp_path / 'recipe.yaml'
    file.write_text(f'lr: -1\nenvironment: {{mixed_precision: {value}}}\n')
    found = errors_of('--config', str(file))
    assert len(found) == 2
    assert "'mixed_precision' in the environment of --config is" in found[1]
    assert 'it must be one of no, fp8, fp16, bf16.' in found[1]


@pytest.mark.parametrize(('value', 'precision'), [('no', 'no'), ("'no'", 'no'), ('bf16', 'bf16'), ('null', None)])
def test_the_precision_of_a_recipe(tmp_path, value, precision):
    file = tmp_path / 'recipe.yaml'
    file.write_text(f'environment: {{mixed_precision: {value}}}\n')
    assert parse_args(['--config', str(file)]).recipe_precision == precision


words = st.text(string.printable, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([item.spelling for item in all_options()]), words), max_size=4))
def test_whatever_is_typed_ends_in_options_or_our_error(pairs):
    argv = [word for flag, value in pairs if flag != '--config' for word in (flag, value)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            config = parse_args(argv)
        except ConfigError as error:
            assert error.errors and all(error.errors)
        else:
            assert config.task.task in TASKS
