"""Block specs on every architecture that timm registers, built without memory."""

import pytest
import timm
import torch

from timm_alfa import resolve_blocks

SPECS = ('last', 'all', 'units', 'units:1', 'convs', '1')


def resolved(arch):
    with torch.device('meta'):
        model = timm.create_model(arch)
    modules = dict(model.named_modules())
    found = {}
    for spec in SPECS:
        if spec == 'convs' and not any(isinstance(m, torch.nn.Conv2d) for m in modules.values()):
            continue
        found[spec] = resolve_blocks(model, spec)
    for spec, names in found.items():
        assert names, spec
        assert len(set(names)) == len(names), spec
        for name in names:
            assert type(modules[name]).forward is not torch.nn.Module.forward, f'{spec}: {name} cannot be called'
    assert found['all'][-1:] == found['last']
    assert found['units:1'] == found['units'][-1:]
    assert found['1'] == found['all'][:1]
    heads = [name for name in ('head', 'fc', 'classifier', 'head.fc') if name in modules]
    assert not {*found['all'], *found['units']} & set(heads)
    return found


@pytest.mark.sweep
def test_every_architecture_has_features(capsys):
    errors, archs = {}, timm.list_models()
    for arch in archs:
        try:
            resolved(arch)
        except Exception as e:
            errors[arch] = f'{type(e).__name__}: {e}'[:200]
    with capsys.disabled():
        print(
            f'\n{len(archs) - len(errors)} of {len(archs)} architectures resolved: '
            f'{100 * (1 - len(errors) / len(archs)):.1f}%'
        )
    assert not errors, '\n'.join(f'{arch}: {error}' for arch, error in errors.items())


@pytest.mark.parametrize('arch', ['resnet18', 'vit_tiny_patch16_224', 'efficientnet_b0', 'convnext_tiny'])
def test_some_architectures_have_features(arch):
    resolved(arch)
