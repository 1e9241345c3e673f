"""What a record keeps of summary.csv."""

import json
from dataclasses import replace

from studies.compare import is_current
from studies.jobs import Job
from studies.recipes import RECIPES
from studies.records import dump, make_record, matches, read_history, vector_columns


def test_values_per_block_become_one_column_in_the_order_of_the_blocks(tmp_path):
    summary = tmp_path / 'summary.csv'
    names = [f'step_size_{block}' for block in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    values = [name.rpartition('_')[2] for name in names]
    summary.write_text('\n'.join([','.join(['train_loss', *names]), ','.join(['1.234567', *values])]))
    assert read_history(summary) == dict(train_loss=[1.2346], step_size=[[float(block) for block in range(11)]])


def test_only_numbered_columns_belong_together():
    assert vector_columns(['val_top1', 'eta_0', 'lr', 'eta_1']) == dict(eta=['eta_0', 'eta_1'])


def test_a_run_is_the_same_with_more_scores():
    """Options that only score more neither make a record stale nor run it again, nor start another run folder."""
    job = Job(RECIPES['small'], 3)
    older = {key: value for key, value in job.options.items() if key != 'score_unused'}
    found = dict(status='finished', recipe='small', seed=3, epochs_scale=1.0, mixed_precision='bf16', options=older)
    assert job.options['score_unused'] and matches(found, job) and is_current(found)
    assert Job(replace(job.recipe, options=older), 3).digest == job.digest

    other = {**found, 'options': {**older, 'train_subset': 4999}}
    assert not matches(other, job) and not is_current(other)


def test_a_record_keeps_the_bits_of_a_result(tmp_path):
    bits = dict(images=8, correct=1, bits='gA==')
    result = dict(status='finished', test_correct=bits, unused_top1=12.5, unused_images=8, run='/somewhere')
    (tmp_path / 'result.json').write_text(json.dumps(result))
    (tmp_path / 'summary.csv').write_text('epoch\n1\n')
    record = json.loads(dump(make_record(Job(RECIPES['small'], 0), tmp_path, threads=1, jobs=1)))
    assert record['test_correct'] == bits and record['unused_top1'] == 12.5 and 'run' not in record
