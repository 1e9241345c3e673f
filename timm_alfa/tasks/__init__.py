"""The methods, as training tasks of timm."""

from timm_alfa.tasks.adv_train import AdvTrainConfig, AdvTrainTask
from timm_alfa.tasks.advprop import AdvPropConfig, AdvPropTask
from timm_alfa.tasks.alfa import AlfaConfig, AlfaTask
from timm_alfa.tasks.l_alfa import LAlfaConfig, LAlfaTask
from timm_alfa.tasks.moex import MoExConfig, MoExTask
from timm_alfa.tasks.noise import NoiseConfig, NoiseTask
from timm_alfa.tasks.registry import TASKS, TaskRow, create_task, list_tasks, register_task
from timm_alfa.tasks.standard import StandardConfig, StandardTask

for _row in (
    TaskRow(
        'standard',
        StandardTask,
        StandardConfig,
        'standard',
        'cross-entropy on clean images',
        'standard training',
        'The training loss was the cross-entropy on clean images: a baseline.',
    ),
    TaskRow(
        'alfa',
        AlfaTask,
        AlfaConfig,
        'alfa',
        'adversarial perturbations of features',
        'ALFA',
        'Adversarial feature augmentation: in addition to the clean loss, the network was trained on features that a '
        'few steps of sign ascent on the loss had perturbed.',
    ),
    TaskRow(
        'l_alfa',
        LAlfaTask,
        LAlfaConfig,
        'alfa',
        'the same on many blocks, magnitudes learned',
        'L-ALFA',
        'Learnable adversarial feature augmentation: in addition to the clean loss, the network was trained on '
        'features perturbed by sign ascent on the loss, with a learned weight eta for each feature.',
    ),
    TaskRow(
        'noise',
        NoiseTask,
        NoiseConfig,
        'noise',
        'Gaussian noise on features',
        'feature noise',
        'Features were perturbed with Gaussian noise instead of adversarially: a baseline for ALFA.',
    ),
    TaskRow(
        'moex',
        MoExTask,
        MoExConfig,
        'moex',
        'moments of an early feature exchanged between images',
        'MoEx',
        'The moments of an early feature were exchanged between images: a baseline for ALFA.',
    ),
    TaskRow(
        'advprop',
        AdvPropTask,
        AdvPropConfig,
        'advprop',
        'clean images, and adversarial images through batch norms of their own',
        'AdvProp',
        'The network was also trained on adversarial images, with auxiliary batch norms that are not in these weights.',
    ),
    TaskRow(
        'adv_train',
        AdvTrainTask,
        AdvTrainConfig,
        'adv-train',
        'adversarial images alone',
        'adversarial training',
        'The network was trained on adversarial images only.',
    ),
):
    register_task(_row)

__all__ = ['TASKS', 'TaskRow', 'create_task', 'list_tasks', 'register_task']
