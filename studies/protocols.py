"""Options that recipes share, as keys of train.py: data, schedules, and the options of each method."""

from typing import Any

Options = dict[str, Any]

CIFAR10: Options = dict(
    dataset='hfds/uoft-cs/cifar10',
    input_key='img',
    target_key='label',
    val_split='test',
    val_fraction=0.1,
    crop_padding=4,
    hflip=0.5,
)
CIFAR100: Options = dict(
    dataset='hfds/uoft-cs/cifar100',
    input_key='img',
    target_key='fine_label',
    val_split='test',
    val_fraction=0.1,
    mean=[0.5071, 0.4865, 0.4409],
    std=[0.2673, 0.2564, 0.2762],
    crop_padding=4,
    hflip=0.5,
)
IMAGENET: Options = dict(
    dataset='hfds/ILSVRC/imagenet-1k',
    input_key='image',
    target_key='label',
    val_split='validation',
    val_fraction=0.1,
    img_size=224,
    crop_pct=0.875,
    interpolation='bilinear',
    train_interpolation='bilinear',
    hflip=0.5,
    color_jitter=0.0,
    workers=8,
)

# 'momentum' is SGD with plain momentum, as in the paper; timm's 'sgd' is Nesterov
_SGD: Options = dict(opt='momentum', momentum=0.9, filter_bias_and_bn=False, sched='multistep', decay_rate=0.1)
PAPER_CIFAR: Options = dict(
    _SGD, batch_size=128, lr=0.1, weight_decay=5e-4, epochs=200, decay_milestones=[50, 150], warmup_updates=200
)
PAPER_IMAGENET: Options = dict(_SGD, batch_size=512, lr=0.2, weight_decay=1e-4, epochs=90, decay_milestones=[30, 60])
# A tenth of the images and a third of the epochs, so that a network overfits within minutes. Not comparable with the
# paper's numbers.
SMALL: Options = dict(PAPER_CIFAR, train_subset=5000, score_unused=True, epochs=60, decay_milestones=[15, 45])
# Options that score more and train the same: runs with and without them are compared.
SCORING = ('score_unused',)
# All of CIFAR-10, short enough for two cores.
SHORT: Options = dict(
    opt='momentum',
    momentum=0.9,
    filter_bias_and_bn=False,
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    sched='cosine',
    epochs=30,
    warmup_updates=200,
)
# Just long enough for a median of the seconds.
COST: Options = dict(PAPER_CIFAR, train_subset=2560, epochs=3, decay_milestones=[2.5], warmup_updates=20)
SMOKE: Options = dict(
    dataset='digits', batch_size=64, lr=0.05, val_fraction=0.1, train_subset=256, epochs=1, warmup_updates=2
)

STANDARD: Options = dict(task='standard')
# Methods that add a loss on perturbed features add its gradient too; this gradient is as large, without the method.
DOUBLED: Options = dict(STANDARD, standard_weight=2.0)
# The same updates as with the doubled loss, but for the first ones of the warm-up, which starts at the same rate.
DOUBLED_RATE: Options = dict(STANDARD, lr=0.2, weight_decay=2.5e-4)
NOISE: Options = dict(task='noise', noise_blocks='last', noise_std='1/255')
MOEX: Options = dict(task='moex', moex_lam=0.9, moex_prob=0.5, moex_norm='pono')
# The papers' defaults; SAM in every update, or in few enough to cost hardly more than standard training.
SAM: Options = dict(task='sam', sam_rho=0.05)
SAM_RARELY: Options = dict(SAM, sam_every=10)
ISDA: Options = dict(task='isda', isda_strength=0.5)
ADVPROP: Options = dict(task='advprop', advprop_steps=5, advprop_step_size='1/255', advprop_eps='4/255')
ADV_TRAIN: Options = dict(task='adv_train', adv_train_steps=10, adv_train_step_size='2/255', adv_train_eps='8/255')


def alfa(step: str, steps: int = 5, blocks: str = 'last', **more: Any) -> Options:
    """ALFA with K = `steps` steps of size `step` / 255."""
    return dict(task='alfa', alfa_blocks=blocks, alfa_steps=steps, alfa_step_size=f'{step}/255', **more)


def l_alfa(blocks: str = 'units:9', gamma: float = 1.0, **more: Any) -> Options:
    """L-ALFA. The search and the optimizer of eta follow the authors' later code; the paper specifies neither."""
    return dict(
        task='l_alfa',
        alfa_blocks=blocks,
        alfa_steps=3,
        alfa_step_size='1/255',
        alfa_gamma=gamma,
        alfa_eta_lr=0.01,
        alfa_projection='hyperplane',
        **{'alfa_mode': 'separate', **more},
    )
