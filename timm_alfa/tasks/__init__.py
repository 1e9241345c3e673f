"""The methods, as training tasks of timm. A method is a file here, a row below, and a card in cards/."""

from timm_alfa.tasks.options.adv_train import AdvTrainConfig
from timm_alfa.tasks.options.advprop import AdvPropConfig
from timm_alfa.tasks.options.alfa import AlfaConfig
from timm_alfa.tasks.options.isda import IsdaConfig
from timm_alfa.tasks.options.l_alfa import LAlfaConfig
from timm_alfa.tasks.options.moex import MoExConfig
from timm_alfa.tasks.options.noise import NoiseConfig
from timm_alfa.tasks.options.sam import SamConfig
from timm_alfa.tasks.options.standard import StandardConfig
from timm_alfa.tasks.registry import TASKS, TaskRow, create_task, list_tasks, register_task

ROWS = (
    TaskRow(
        name='standard',
        task='timm_alfa.tasks.standard:StandardTask',
        config=StandardConfig,
        prefix='standard',
        summary='cross-entropy on clean images',
        title='standard training',
        text='The training loss was the cross-entropy on clean images: a baseline.',
    ),
    TaskRow(
        name='alfa',
        task='timm_alfa.tasks.alfa:AlfaTask',
        config=AlfaConfig,
        prefix='alfa',
        summary='adversarial perturbations of features',
        title='ALFA',
        text=(
            'Adversarial feature augmentation: in addition to the clean loss, the network was trained on features that '
            'a few steps of sign ascent on the loss had perturbed.'
        ),
    ),
    TaskRow(
        name='l_alfa',
        task='timm_alfa.tasks.l_alfa:LAlfaTask',
        config=LAlfaConfig,
        prefix='alfa',
        summary='the same on many blocks, magnitudes learned',
        title='L-ALFA',
        text=(
            'Learnable adversarial feature augmentation: in addition to the clean loss, the network was trained on '
            'features perturbed by sign ascent on the loss, with a learned weight eta for each feature.'
        ),
    ),
    TaskRow(
        name='noise',
        task='timm_alfa.tasks.noise:NoiseTask',
        config=NoiseConfig,
        prefix='noise',
        summary='Gaussian noise on features',
        title='feature noise',
        text='Features were perturbed with Gaussian noise instead of adversarially: a baseline for ALFA.',
    ),
    TaskRow(
        name='moex',
        task='timm_alfa.tasks.moex:MoExTask',
        config=MoExConfig,
        prefix='moex',
        summary='moments of an early feature exchanged between images',
        title='MoEx',
        text='The moments of an early feature were exchanged between images: a baseline for ALFA.',
    ),
    TaskRow(
        name='advprop',
        task='timm_alfa.tasks.advprop:AdvPropTask',
        config=AdvPropConfig,
        prefix='advprop',
        summary='clean images, and adversarial images through separate batch norms',
        title='AdvProp',
        text=(
            'The network was also trained on adversarial images, with auxiliary batch norms that are not in these '
            'weights.'
        ),
    ),
    TaskRow(
        name='adv_train',
        task='timm_alfa.tasks.adv_train:AdvTrainTask',
        config=AdvTrainConfig,
        prefix='adv-train',
        summary='adversarial images alone',
        title='adversarial training',
        text='The network was trained on adversarial images only.',
    ),
    TaskRow(
        name='sam',
        task='timm_alfa.tasks.sam:SamTask',
        config=SamConfig,
        prefix='sam',
        summary='perturbed weights: sharpness-aware minimization',
        title='SAM',
        text=(
            'Sharpness-aware minimization: the gradient was taken at weights that a step of fixed length along the '
            'gradient had perturbed.'
        ),
    ),
    TaskRow(
        name='isda',
        task='timm_alfa.tasks.isda:IsdaTask',
        config=IsdaConfig,
        prefix='isda',
        summary='last features varied along the covariance of their class, in closed form',
        title='ISDA',
        text=(
            'Implicit semantic data augmentation: the loss was an upper bound of its expectation over last features '
            'that vary along the covariance of their class.'
        ),
    ),
)

for _row in ROWS:
    register_task(_row)

__all__ = ['TASKS', 'TaskRow', 'create_task', 'list_tasks', 'register_task']
