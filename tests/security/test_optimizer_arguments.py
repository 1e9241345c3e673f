"""Further arguments of an optimizer are plain data that its constructor takes."""

import pytest
import yaml

from timm_alfa.errors import ConfigError
from timm_alfa.training.options.opt_kwargs import constructor_arguments, optimizer_argument_errors
from timm_alfa.training.options.train_args import parse_args


@pytest.mark.parametrize(
    ('opt', 'arguments', 'part'),
    [
        ('sgd', {'param_group_fn': 'os.system'}, "has 'param_group_fn', which is not an option"),
        ('fusedsgd', {'param_group_fn': 'os.system'}, "has 'param_group_fn', which is not an option"),
        ('sgd', {'params': [1]}, "has 'params'"),
        ('sgd', {'model_or_params': []}, "has 'model_or_params'"),
        ('adamw', {'eps': 1e-3}, "has 'eps': use --opt-eps"),
        ('sgd', {'lr': 1}, "has 'lr': use --lr"),
        ('sgd', {'nestrov': True}, "unknown argument of sgd 'nestrov'. Did you mean 'nesterov'?"),
        ('kron', {'preconditioner_update_probability': {'a': [[[[[[[1]]]]]]]}}, 'which is too large'),
        ('muon', {'fallback_list': ['x' * 2000]}, 'which is too long'),
    ],
)
def test_what_is_not_an_option_is_refused_before_data_are_opened(opt, arguments, part, refused, tmp_path):
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump({'opt': opt, 'opt_kwargs': arguments, 'data_dir': '/does/not/exist'}))
    message = refused('train.py', '--config', file)
    assert part in message and f"'opt_kwargs' in {file}" in message, message


def test_nothing_but_plain_data_is_a_value():
    (line,) = optimizer_argument_errors({'nesterov': print}, '--opt-kwargs', 'sgd')
    assert "'nesterov', which is a builtin_function_or_method" in line


def test_every_optimizer_keeps_its_arguments():
    from timm.optim import list_optimizers

    known = {name: constructor_arguments(name) for name in list_optimizers()}
    unknown = [name for name, arguments in known.items() if arguments is None]
    assert all(name.startswith(('bnb', 'fused')) for name in unknown)
    assert {'nesterov', 'dampening', 'layer_decay_min_scale'} <= known['sgd']
    assert not any({'params', 'param_group_fn', 'lr'} & (arguments or set()) for arguments in known.values())
    config = parse_args(['--opt', 'sgd', '--opt-kwargs', 'nesterov=False', 'layer_decay_min_scale=0.1'])
    assert config.optim.opt_kwargs == {'nesterov': False, 'layer_decay_min_scale': 0.1}


def test_unknown_names_are_refused_with_all_other_errors():
    with pytest.raises(ConfigError) as caught:
        parse_args(['--opt-kwargs', 'nonsense=1', '--model', 'resnet20x'])
    assert len(caught.value.errors) == 2
