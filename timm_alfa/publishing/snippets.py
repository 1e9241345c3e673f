"""How to load a published model: the code blocks of its card."""

from typing import NamedTuple

from timm_alfa.models import resnet_cifar
from timm_alfa.zoo.tags import TAGS


class Snippet(NamedTuple):
    """A title and its code."""

    title: str
    code: str


def snippets(repo_id: str, revision: str, architecture: str, input_size: tuple[int, int, int]) -> list[Snippet]:
    """Three ways to use it; each runs as it stands.

    Args:
        repo_id: ORG/NAME.
        revision: 'main' or another branch.
        architecture: timm's name.
        input_size: Channels, height, width.
    """
    org, _, name = repo_id.partition('/')
    source = f'hf-hub:{repo_id}' + (f'@{revision}' if revision != 'main' else '')
    ours = 'import timm_alfa  # registers the architecture\n' if architecture in resnet_cifar.default_cfgs else ''
    mode = 'L' if input_size[0] == 1 else 'RGB'
    classify = f"""import timm
{ours}import torch
from PIL import Image

model = timm.create_model('{source}', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = Image.new('{mode}', (64, 64))  # yours: Image.open('image.png').convert('{mode}')
with torch.inference_mode():
    probabilities = model(transform(image).unsqueeze(0)).softmax(-1)
top5 = probabilities.topk(min(5, model.num_classes))"""
    by_name = f"""import os
import timm
import timm_alfa  # registers the name

os.environ['TIMM_ALFA_HUB_ORG'] = '{org}'  # not needed for names that timm.list_pretrained() shows
model = timm.create_model('{name}', pretrained=True)"""
    features = f"""import timm
{ours}
model = timm.create_model('{source}', pretrained=True, num_classes=0).eval()  # images to vectors"""
    shape = ', '.join(map(str, input_size))
    finetune = f"""import timm
import timm_alfa
import torch

model = timm.create_model('{source}', pretrained=True, num_classes=5)
task = timm_alfa.create_task('alfa', model, blocks='last', steps=5, step_size=1 / 255)
input, target = torch.randn(8, {shape}), torch.randint(5, (8,))  # your batch
task(input, target)['loss'].backward()"""
    registered = name in TAGS and revision == 'main'
    return [
        Snippet('Classify an image', classify),
        Snippet('By its name', by_name) if registered else Snippet('As an encoder', features),
        Snippet('Fine-tune on classes of your own, again with ALFA', finetune),
    ]
