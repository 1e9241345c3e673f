"""What is published, in transformers: its timm wrapper reads timm's config.json."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_alfa.publishing.publish import Publication, publish
from timm_alfa.training.run_dir.folder import BEST, link_hub_name

transformers = pytest.importorskip('transformers', reason='loading a published model in transformers needs it')

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


@pytest.fixture(autouse=True, scope='module')
def _quiet():
    transformers.utils.logging.disable_progress_bar()


def published(run, tmp_path, name):
    """The folder of a dry run."""
    publish(Publication(run, f'me/{name}', license='mit'), output=tmp_path / name)
    return tmp_path / name


def classify(folder):
    """The logits of transformers and of timm, each with its own preprocessing."""
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    net = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net), is_training=False)
    with torch.no_grad():
        return model, model(**processor(IMAGE)).logits, net(transform(IMAGE)[None])


@pytest.mark.parametrize('architecture', ['test_resnet', 'test_vit', 'resnet20s'])
def test_logits_and_labels_are_those_of_timm(make_run, tmp_path, architecture):
    """Of our own architectures, too, since timm_alfa is imported here."""
    folder = published(make_run(architecture, num_classes=7), tmp_path, f'{architecture}.x')
    model, logits, expected = classify(folder)
    assert logits.shape == (1, 7)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert model.config.id2label == {index: f'class{index}' for index in range(7)}
    assert model.config.label2id['class3'] == 3
    classifier = transformers.pipeline('image-classification', model=str(folder))
    first = classifier(IMAGE, top_k=1)[0]
    assert first['label'] == f'class{int(expected.argmax())}'
    assert first['score'] == pytest.approx(float(expected.softmax(-1).max()), abs=1e-5)


def test_a_run_folder_and_a_run_that_was_trained_before(make_run, tmp_path):
    """Its config.json used to have the number of classes among the arguments of the model, too."""
    run = make_run('test_resnet')
    link_hub_name(run)
    assert 'num_classes' not in json.loads((run / 'config.json').read_text())['model_args']
    _, logits, expected = classify(run)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)

    config = json.loads((run / 'config.json').read_text())
    config['model_args']['num_classes'] = 10
    (run / 'config.json').write_text(json.dumps(config))
    (run / 'model.safetensors').unlink()
    _, again, _ = classify(published(run, tmp_path, 'test_resnet.x'))
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
    assert (run / BEST).exists()
