"""The usual names of splits, however they are written."""

import re
from typing import Optional, Sequence

TRAIN_NAMES = ('train', 'training', 'trainset', 'trainingset')
EVAL_NAMES = ('validation', 'val', 'valid', 'eval', 'evaluation', 'valset', 'validset', 'validationset')
TEST_NAMES = ('test', 'testing', 'testset')


def simplified(name: str) -> str:
    """Returns a name without what people write differently: 'Train_Set' and 'train-set' are 'trainset'."""
    return re.sub('[-_ ]', '', name).casefold()


def is_split_name(name: str) -> bool:
    """Whether a name is one of the usual ones."""
    return simplified(name) in (*TRAIN_NAMES, *EVAL_NAMES, *TEST_NAMES)


def is_test_name(name: str) -> bool:
    """Whether a name is a usual one of a test split."""
    return simplified(name) in TEST_NAMES


def matching_name(wanted: str, known: Sequence[str]) -> Optional[str]:
    """Returns the known split that a name means: itself, or the first of its synonyms; None without one.

    A name of a validation split also means the test split, if there is no other; not the other way round.
    """
    if wanted in known:
        return wanted
    key = simplified(wanted)
    groups = (TRAIN_NAMES, (*EVAL_NAMES, *TEST_NAMES), TEST_NAMES)
    synonyms = next((names for names in reversed(groups) if key in names), ())
    written = {simplified(name): name for name in reversed(known)}
    return next((written[name] for name in (key, *synonyms) if name in written), None)
