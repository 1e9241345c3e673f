"""The methods, as training tasks of timm."""
from timm_alfa.tasks.alfa import AlfaConfig, AlfaTask
from timm_alfa.tasks.l_alfa import LAlfaConfig, LAlfaTask
from timm_alfa.tasks.registry import TASKS, TaskRow, create_task, list_tasks, register_task
from timm_alfa.tasks.standard import StandardConfig, StandardTask

for _row in (
        TaskRow('standard', StandardTask, StandardConfig, 'standard', 'cross-entropy on clean images'),
        TaskRow('alfa', AlfaTask, AlfaConfig, 'alfa', 'adversarial perturbations of features'),
        TaskRow('l_alfa', LAlfaTask, LAlfaConfig, 'alfa', 'the same on many blocks, magnitudes learned'),
):
    register_task(_row)

__all__ = ['TASKS', 'TaskRow', 'create_task', 'list_tasks', 'register_task']
