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
        TaskRow('standard', StandardTask, StandardConfig, 'standard', 'cross-entropy on clean images'),
        TaskRow('alfa', AlfaTask, AlfaConfig, 'alfa', 'adversarial perturbations of features'),
        TaskRow('l_alfa', LAlfaTask, LAlfaConfig, 'alfa', 'the same on many blocks, magnitudes learned'),
        TaskRow('noise', NoiseTask, NoiseConfig, 'noise', 'Gaussian noise on features'),
        TaskRow('moex', MoExTask, MoExConfig, 'moex', 'moments of an early feature exchanged between images'),
        TaskRow('advprop', AdvPropTask, AdvPropConfig, 'advprop',
                'clean images, and adversarial images through batch norms of their own'),
        TaskRow('adv_train', AdvTrainTask, AdvTrainConfig, 'adv-train', 'adversarial images alone'),
):
    register_task(_row)

__all__ = ['TASKS', 'TaskRow', 'create_task', 'list_tasks', 'register_task']
