"""The model card: its metadata as huggingface_hub reads it back, and what its text states."""

import dataclasses
import json

import pytest
import timm
import yaml
from huggingface_hub import ModelCard

from timm_alfa import list_tasks
from timm_alfa.errors import HubError
from timm_alfa.publishing.card.build import build_card
from timm_alfa.publishing.card.metadata import base_model, dataset_names
from timm_alfa.publishing.card.paper import differences, paper_rows
from timm_alfa.publishing.card.sections import accuracy_rows, format_value
from timm_alfa.publishing.card.snippets import snippets
from timm_alfa.tasks import TASKS
from timm_alfa.training.run_dir.finished import read_run
from timm_alfa.zoo.tags import DATASETS


def card(run, repo='me/resnet20s.alfa_c10', **kwargs) -> ModelCard:
    """The card, written and read back."""
    return ModelCard(str(build_card(read_run(run), repo, **kwargs)))


def test_metadata(make_run):
    data = card(make_run(robust_top1=4.5)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ('timm', 'image-classification', 'apache-2.0')
    assert data.tags == ['timm', 'image-classification', 'alfa']
    assert data.datasets == ['uoft-cs/cifar10']
    assert data.base_model is None
    found = {result.metric_name: result for result in data.eval_results}
    assert {name: result.metric_value for name, result in found.items()} == {
        'Top-1 accuracy': 91.75,
        'Top-5 accuracy': 99.6,
        'Robust top-1 accuracy': 4.5,
    }
    for result in found.values():
        assert (result.dataset_type, result.dataset_split, result.dataset_config) == ('uoft-cs/cifar10', 'test', None)
    assert 'null' not in build_card(read_run(make_run()), 'me/x').data.to_yaml()  # the Hub rejects a null here


def test_every_method_has_a_card(make_run):
    run = make_run()
    record = json.loads((run / 'result.json').read_text())
    for task in list_tasks():
        (run / 'result.json').write_text(json.dumps({**record, 'task': task}))
        made = card(run, 'me/x')
        assert task.replace('_', '-') in made.data.tags
        assert ('alfa' in made.data.tags) == ('alfa' in task)
        assert '{{' not in made.text.replace('{{ALFA}', '')


def test_the_text_states_the_run(make_run):
    text = card(make_run()).text
    for part in (
        '| This model | 91.75 | 99.60 |',
        '| Paper, table 2: standard training | 91.25 |',
        '| Paper, table 2: ALFA | 92.52 |',
        '| `steps` | 5 |',
        '| `step_size` | 0.5/255 |',
        '| perturbed features | `layer3` |',
        '-m timm_alfa.train --model resnet20s --alfa-step-size 0.5/255',
        'torch 2.15',
        '1.50 hours',
        'a test',
        'c0ffee',
        '(10000 images)',
        'evaluated once',
        '![losses',
    ):
        assert part in text, part
    assert '\n\n\n' not in text


def test_an_l_alfa_card_shows_eta(make_run):
    text = card(make_run(task='l_alfa', eta=[0.25, 0.75], blocks=['act1', 'layer3'])).text
    assert '| `act1` | 0.2500 |' in text
    assert '| `layer3` | 0.7500 |' in text
    assert '(eta.png)' in text
    assert 'eta' not in card(make_run()).text.split()


@pytest.mark.parametrize('split', [None, 'test', 'train (10% held out)'])
def test_an_accuracy_on_the_split_that_chose_the_checkpoint_is_called_optimistic(make_run, split):
    made = card(make_run(test_top1=None, test_top5=None, test_split=None, val_split=split))
    assert made.data.eval_results[0].dataset_split == (split or 'validation')
    assert f'on the split `{split or "validation"}` (5000 images)' in made.text
    assert 'optimistic' in made.text
    assert 'evaluated once' not in made.text


def test_an_accuracy_on_another_split_names_the_one_that_chose_the_checkpoint(make_run):
    made = card(make_run(val_split='train (10% held out)'))
    assert made.data.eval_results[0].dataset_split == 'test'
    assert '`train (10% held out)`, after epoch 180. The split `test` was\nevaluated once' in made.text
    assert 'optimistic' not in made.text


def test_a_run_that_was_resumed_with_other_options_says_so(make_run):
    text = card(
        make_run(
            test_reads=2,
            continued=[
                {'epoch': 3, 'command': ['train.py', '--resume', 'x y'], 'mixed_precision': 'fp16', 'before': 'no'}
            ],
        )
    ).text
    assert 'evaluated 2 times' in text and 'evaluated once' not in text
    assert (
        'accelerate launch -m timm_alfa.train --model resnet20s --alfa-step-size 0.5/255\n'
        '# resumed after epoch 3 with other options:\n'
        "accelerate launch --mixed_precision fp16 -m timm_alfa.train --resume 'x y'\n```"
    ) in text


def test_imagenet_terms(make_run):
    run = make_run('test_resnet', num_classes=1000, dataset='/data/imagenet')
    made = card(run, 'me/x')
    assert (made.data.license, made.data.license_name) == ('other', 'imagenet-terms-of-access')
    assert 'non-commercial' in made.text
    assert card(run, 'me/x', license='mit').data.license == 'mit'


def test_another_license_is_not_named_other(make_run):
    assert 'licensed under mit' in card(make_run(), license='mit').text
    text = card(make_run(), license='other').text
    assert 'is not a standard one' in text and 'under other' not in text


def started(run, **args):
    (run / 'args.yaml').write_text(yaml.safe_dump(args))
    return run


def test_no_license_is_claimed_that_nobody_stated(make_run):
    run = make_run('test_resnet', num_classes=1000, dataset='/data/ilsvrc')
    with pytest.raises(HubError, match=r"--dataset '/data/ilsvrc' is not known: add --license ID"):
        card(run, 'me/x')
    assert card(run, 'me/x', license='cc-by-4.0').data.license == 'cc-by-4.0'
    made = card(run, 'me/x', dataset_id='ILSVRC/imagenet-1k')
    assert (made.data.license_name, 'non-commercial' in made.text) == ('imagenet-terms-of-access', True)
    with pytest.raises(HubError, match=r"--dataset 'hfds/me/pets'"):
        card(make_run(dataset='hfds/me/pets'), 'me/x', dataset_id='me/pets')


@pytest.mark.parametrize('model', ['resnet50.a1_in1k', 'resnet50', 'vit_base_patch16_224.augreg_in21k'])
def test_weights_from_imagenet_keep_its_terms(make_run, model):
    made = card(started(make_run(), model=model, pretrained=True))
    assert (made.data.license, made.data.license_name) == ('other', 'imagenet-terms-of-access')
    assert 'non-commercial' in made.text
    assert card(started(make_run(), model=model, pretrained=False)).data.license == 'apache-2.0'


@pytest.mark.parametrize(
    'args',
    [
        {'initial_checkpoint': '/data/w.pth'},
        {'model': 'resnet50.no_such_tag', 'pretrained': True},
        {'model': 'hf-hub:me/other', 'pretrained': True},
        {'model': 'resnet50.fb_swsl_ig1b_ft_in1k', 'pretrained': True},
    ],
)
def test_weights_from_elsewhere_need_a_license(make_run, args):
    with pytest.raises(HubError, match=r"weights from --(initial-checkpoint|pretrained) '.*add --license ID"):
        card(started(make_run(), **args))
    assert card(started(make_run(), **args), license='mit').data.license == 'mit'


def test_our_own_weights_keep_theirs(make_run):
    assert card(started(make_run(), model='resnet20s.alfa_c10', pretrained=True)).data.license == 'apache-2.0'


def test_the_standard_run_is_compared_with(make_run):
    run, standard = make_run(), read_run(make_run(task='standard', test_top1=91.0, test_top5=None))
    assert {
        'title': 'Standard training with the same code',
        'top1': '91.00',
        'top5': '-',
        'robust': '-',
        'images': '45,000',
        'epochs': '200',
    } in accuracy_rows(read_run(run), standard)
    assert '91.00' in card(run, standard=standard).text
    with pytest.raises(HubError, match=r'its task is alfa'):
        accuracy_rows(read_run(run), read_run(make_run()))
    other = read_run(make_run(task='standard', epochs=100, test_top1=None))
    with pytest.raises(HubError, match=r'its epochs is 100, this run has 200; it was evaluated on validation'):
        accuracy_rows(read_run(run), other)


def test_no_path_of_the_machine_is_a_dataset(make_run):
    run = read_run(make_run(dataset='hfds//home/me/secret/pets'))
    assert dataset_names(run) == ('pets', 'pets')
    assert card(run.folder, 'me/x', license='mit').data.datasets is None
    assert card(run.folder, 'me/x', license='mit', dataset_id='me/pets').data.datasets == ['me/pets']
    assert dataset_names(read_run(make_run(dataset='hfds/me/pets')))[1] == 'me/pets'
    assert dataset_names(read_run(make_run(dataset='hfds/uoft-cs/cifar10')))[0] == 'CIFAR-10'


def test_base_model(make_run):
    def of(**args):
        run = make_run()
        (run / 'args.yaml').write_text(yaml.safe_dump(args))
        return base_model(read_run(run))

    assert of(model='resnet50.a1_in1k', pretrained=True) == 'timm/resnet50.a1_in1k'
    assert of(model='resnet50', pretrained=True) == f'timm/resnet50.{timm.get_pretrained_cfg("resnet50").tag}'
    assert of(model='resnet50.a1_in1k', pretrained=False) is None
    assert of(model='hf-hub:me/other@v2', pretrained=True) == 'me/other'
    assert of(model='resnet50.no_such_tag', pretrained=True) is None


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1 / 255, '1/255'),
        (0.5 / 255, '0.5/255'),
        (1.0, '1'),
        (0.9, '0.9'),
        (5, '5'),
        (None, 'none'),
        (True, 'True'),
        ('units:9', 'units:9'),
        ([1, 2], '1, 2'),
        (0.01, '0.01'),
        (0.0, '0'),
        (0.1, '0.1'),
        (0.2, '0.2'),
        (16 / 255, '16/255'),
    ],
)
def test_format_value(value, text):
    assert format_value(value) == text


def test_the_papers_rows_are_of_models_and_data_that_are_known():
    for row in paper_rows():
        assert timm.is_model(row['model'])
        assert row['dataset'] in DATASETS
        assert 0 < row['top1'] < 100
    keys = [(row['model'], row['dataset'], row['method']) for row in paper_rows()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(('known', 'title'), [(True, 'My method'), (False, 'mine')])
def test_a_method_is_one_row(make_run, monkeypatch, known, title):
    """Also a method that the paper has an accuracy of; one that is not registered is shown by its name."""
    row = dataclasses.replace(TASKS['standard'], name='mine', title='My method', text='It does little.')
    figure = {'model': 'resnet20s', 'dataset': 'c10', 'method': 'mine', 'top1': 90.0, 'table': 9}
    monkeypatch.setattr('timm_alfa.publishing.card.paper.paper_rows', lambda: (figure,))
    if known:
        monkeypatch.setitem(TASKS, 'mine', row)
    text = card(make_run(task='mine')).text
    assert f'Paper, table 9: {title} | 90.00' in text
    assert ('It does little.' in text) == known


def test_snippets_import_what_registers_an_architecture():
    ours = timm.list_models(module='resnet_cifar')
    assert 'resnet56s' in ours
    for architecture in (*ours, 'resnet18'):
        for snippet in snippets('me/x', 'main', architecture, (3, 32, 32), {'num_classes': 10})[:3]:
            assert ('import timm_alfa  # registers' in snippet.code) == (architecture in ours)


def headings(text):
    """What two cards are compared by: headings, names of the lists' entries, and columns of the tables."""
    return [
        line.split(':**')[0] if line.startswith('- **') else line
        for line in text.splitlines()
        if line.startswith(('#', '- **', '| Model', '| Option'))
    ]


def test_cards_of_two_runs_can_be_compared(make_run):
    """Also of an old run that lacks entries, and of one that was measured more closely."""
    full = started(make_run(robust_top1=4.5), opt='sgd', sched='cosine', mixup=0.2, smoothing=0.1, model_ema=False)
    bare = make_run(test_top5=None, seconds=None, device=None, params=None, versions=None)
    (bare / 'args.yaml').unlink()
    first, second = card(full).text, card(bare).text
    assert headings(first) == headings(second)
    assert '- **Augmentation:** mixup 0.2, smoothing 0.1' in first and '- **Augmentation:** not recorded' in second
    assert '- **EMA of the weights:** no' in first
    assert '| This model | 91.75 | 99.60 | 4.50 | 45,000 | 200 |' in first
    assert '| This model | 91.75 | - | - | 45,000 | 200 |' in second


@pytest.mark.parametrize(
    ('record', 'args', 'says'),
    [
        ({'train_images': 2000}, {}, 'it trained on 2,000 of the 50,000 images'),
        ({'epochs': 30, 'epochs_done': 30}, {}, 'it trained for 30 epochs, not 200'),
        ({'test_images': 500}, {}, 'it was evaluated on 500 images, the paper on 10,000'),
        ({}, {'pretrained': True, 'model': 'resnet20s.alfa_c10'}, 'it started from pretrained weights'),
    ],
)
def test_another_experiment_is_not_compared_with_the_paper(make_run, record, args, says):
    text = card(started(make_run(**record), **args)).text
    assert 'Paper, table' not in text
    assert f'cannot be compared with this run: {says}.' in text
    assert not list(differences(read_run(make_run())))


def test_fine_tuned_weights_name_what_they_started_from(make_run):
    made = card(started(make_run('test_resnet'), model='test_resnet.r160_in1k', pretrained=True), 'me/x')
    assert (made.data.base_model, made.data.base_model_relation) == ('timm/test_resnet.r160_in1k', 'finetune')
    assert '- **Starting weights:** `timm/test_resnet.r160_in1k`' in made.text
    local = card(started(make_run(), model='local-dir:/home/me/run', pretrained=True), license='mit')
    assert local.data.base_model is None
    assert '- **Starting weights:** pretrained (local-dir:/PATH/run)' in local.text


@pytest.mark.parametrize(('address', 'shown'), [(None, False), ('https://example.org/timm_alfa', True)])
def test_the_card_leads_to_the_code_where_it_has_an_address(make_run, monkeypatch, address, shown):
    monkeypatch.setattr('timm_alfa.publishing.card.build.REPOSITORY', address)
    text = card(make_run()).text
    assert ('<https://example.org/timm_alfa>' in text) == ('The code is at' in text) == shown
    assert '```shell\npip install timm_alfa\n```' in text
    timms = card(make_run('test_resnet'), 'me/x').text
    assert '```shell\npip install timm\n```' in timms and 'Fine-tuning with ALFA also needs timm_alfa' in timms


def test_gray_images_have_no_pipeline():
    """transformers converts every image to RGB."""
    titles = [each.title for each in snippets('me/x', 'main', 'resnet18', (1, 28, 28), {'num_classes': 10})]
    assert titles == ['Image classification', 'Image embeddings', 'Fine-tuning with ALFA']
