"""What a record keeps of summary.csv."""

from studies.records import read_history, vector_columns


def test_values_per_block_become_one_column_in_the_order_of_the_blocks(tmp_path):
    summary = tmp_path / 'summary.csv'
    names = [f'step_size_{block}' for block in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    values = [name.rpartition('_')[2] for name in names]
    summary.write_text('\n'.join([','.join(['train_loss', *names]), ','.join(['1.234567', *values])]))
    assert read_history(summary) == dict(train_loss=[1.2346], step_size=[[float(block) for block in range(11)]])


def test_only_numbered_columns_belong_together():
    assert vector_columns(['val_top1', 'eta_0', 'lr', 'eta_1']) == dict(eta=['eta_0', 'eta_1'])
