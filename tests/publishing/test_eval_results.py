"""The Hub's evaluation results, as huggingface_hub reads them back."""

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from timm_alfa.publishing.eval_results import eval_results
from timm_alfa.training.run_dir.finished import read_run


def test_the_accuracy_of_a_dataset_on_the_hub(make_run):
    files = eval_results(read_run(make_run()), 'me/x')
    assert list(files) == ['.eval_results/cifar10.yaml']
    (entry,) = parse_eval_result_entries(yaml.safe_load(files['.eval_results/cifar10.yaml']))
    assert (entry.dataset_id, entry.value) == ('uoft-cs/cifar10', 91.75)
    assert entry.source_url == 'https://huggingface.co/me/x'
    assert "top-1 accuracy in percent on split 'test'" in entry.notes


@pytest.mark.parametrize(
    'record',
    [
        {'dataset': 'digits'},
        {'dataset': '/home/me/pets'},
        {'test_images': 500},
        {'test_top1': None, 'val_split': 'train (10% held out)'},
    ],
)
def test_what_no_leaderboard_could_compare_is_left_out(make_run, record):
    assert eval_results(read_run(make_run(**record)), 'me/x') == {}


def test_a_dataset_that_the_user_names(make_run):
    run = read_run(make_run(dataset='/home/me/pets'))
    (text,) = eval_results(run, 'me/x', 'me/pets').values()
    assert yaml.safe_load(text)[0]['dataset']['id'] == 'me/pets'
