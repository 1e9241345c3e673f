"""The measured accuracy in the Hub's format for leaderboards, `.eval_results/*.yaml`.

https://huggingface.co/docs/hub/eval-results: the Hub shows the results of datasets that are registered as benchmarks
there, and leaves others alone. `model-index` in the card's metadata states the same for every dataset.
"""

import re
from typing import Optional

from timm_alfa.publishing.card.metadata import dataset_names, plain
from timm_alfa.training.run_dir.finished import FinishedRun
from timm_alfa.utils.plain_data import dump_yaml

FOLDER = '.eval_results'
_SPLITS = ('test', 'validation', 'val')


def eval_results(run: FinishedRun, repo_id: str, dataset_id: Optional[str] = None) -> dict[str, str]:
    """The files to publish, by name: one with the top-1 accuracy, or none.

    There is none if the dataset is not on the Hub, or if the run was scored on a part of a split: a leaderboard
    compares what was measured on the same images. Accuracies under attack are not results of the dataset's benchmark.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    found, dataset = run.evaluation, run.dataset_as(dataset_id)
    hub_id = plain(dataset_names(run, dataset_id)[1])
    is_part = dataset is not None and found.images not in (None, dataset.images[1])
    if '/' not in hub_id or found.split not in _SPLITS or is_part:
        return {}
    entry = EvalResultEntry(
        dataset_id=hub_id,
        task_id='default',
        value=round(float(found.top1), 3),
        source_url=f'https://huggingface.co/{repo_id}',
        source_name='Model card',
        notes=f"top-1 accuracy in percent on split '{found.split}', one training run",
    )
    name = re.sub(r'[^\w.-]+', '-', hub_id.rpartition('/')[2])
    return {f'{FOLDER}/{name}.yaml': dump_yaml(eval_result_entries_to_yaml([entry]))}
