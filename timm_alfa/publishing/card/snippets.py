"""How to load a published model: the code blocks of its card."""

from typing import Any, Mapping, NamedTuple

from timm_alfa.models import resnet_cifar
from timm_alfa.zoo.tags import TAGS


class Snippet(NamedTuple):
    """A title and its code."""

    title: str
    code: str


def is_ours(architecture: str) -> bool:
    """Whether timm knows an architecture only after `import timm_alfa`."""
    return architecture in resnet_cifar.default_cfgs


def snippets(
    repo_id: str,
    revision: str,
    architecture: str,
    input_size: tuple[int, int, int],
    config: Mapping[str, Any],
) -> list[Snippet]:
    """The ways to use a model; each runs as it is, and they come in the same order on every card.

    Args:
        repo_id: ORG/NAME.
        revision: 'main' or another branch.
        architecture: timm's name.
        input_size: Channels, height, width.
        config: The published config.json.
    """
    source = f'hf-hub:{repo_id}' + (f'@{revision}' if revision != 'main' else '')
    registers = 'import timm_alfa  # registers the architecture\n' if is_ours(architecture) else ''
    found = [_classification(source, registers, input_size, config)]
    if input_size[0] == 3:  # transformers converts every image to RGB
        found.append(_pipeline(repo_id, revision, registers))
    found.append(_embeddings(source, registers))
    if repo_id.partition('/')[2] in TAGS and revision == 'main':
        found.append(_by_name(repo_id))
    return [*found, _fine_tuning(source, input_size)]


def _classification(
    source: str, registers: str, input_size: tuple[int, int, int], config: Mapping[str, Any]
) -> Snippet:
    mode = 'L' if input_size[0] == 1 else 'RGB'
    names = "model.pretrained_cfg['label_names']" if config.get('label_names') else 'range(model.num_classes)'
    code = f"""import timm
{registers}import torch
from PIL import Image

model = timm.create_model({source!r}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

image = Image.new({mode!r}, (64, 64))  # or Image.open('image.png').convert({mode!r})
with torch.inference_mode():
    probabilities = model(transform(image).unsqueeze(0))[0].softmax(-1)

names = {names}
top = probabilities.topk({min(5, config['num_classes'])})
for probability, index in zip(top.values.tolist(), top.indices.tolist()):
    print(f'{{names[index]}}: {{probability:.1%}}')"""
    return Snippet('Image classification', code)


def _pipeline(repo_id: str, revision: str, registers: str) -> Snippet:
    at = f', revision={revision!r}' if revision != 'main' else ''
    code = f"""from PIL import Image
{registers}from transformers import pipeline

classifier = pipeline('image-classification', model={repo_id!r}{at})
print(classifier(Image.new('RGB', (64, 64))))  # or classifier('image.png')"""
    return Snippet('In transformers', code)


def _by_name(repo_id: str) -> Snippet:
    org, _, name = repo_id.partition('/')
    code = f"""import os
import timm
import timm_alfa  # registers the name

os.environ['TIMM_ALFA_HUB_ORG'] = {org!r}  # not needed for names that timm.list_pretrained() shows
model = timm.create_model({name!r}, pretrained=True)"""
    return Snippet('By name', code)


def _embeddings(source: str, registers: str) -> Snippet:
    code = f"""import timm
{registers}
model = timm.create_model({source!r}, pretrained=True, num_classes=0).eval()  # images to vectors"""
    return Snippet('Image embeddings', code)


def _fine_tuning(source: str, input_size: tuple[int, int, int]) -> Snippet:
    shape = ', '.join(map(str, input_size))
    code = f"""import timm
import timm_alfa
import torch

model = timm.create_model({source!r}, pretrained=True, num_classes=5)
task = timm_alfa.create_task('alfa', model, blocks='last', steps=5, step_size=1 / 255)

input, target = torch.randn(8, {shape}), torch.randint(5, (8,))  # a batch of your data
task(input, target)['loss'].backward()"""
    return Snippet('Fine-tuning with ALFA', code)
