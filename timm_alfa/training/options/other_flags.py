"""Flags of timm's train.py, and of Hugging Face's scripts, that are spelled differently here or do not exist."""

_PRECISION = 'Use `accelerate launch --mixed_precision bf16` (or fp16) before the script'
_LAUNCHER = 'Leave it out: the launcher sets it'
_TRACKER = 'Use --log-with wandb; wandb reads WANDB_PROJECT and other variables'

# What to do instead, without a period.
INSTEAD = {
    '--amp': _PRECISION,
    '--amp-dtype': _PRECISION,
    '--amp-impl': _PRECISION,
    '--native-amp': _PRECISION,
    '--apex-amp': _PRECISION,
    '--model-dtype': _PRECISION,
    '--fp16': _PRECISION,
    '--bf16': _PRECISION,
    '--device': 'Use `accelerate launch --cpu` or CUDA_VISIBLE_DEVICES',
    '--local_rank': _LAUNCHER,
    '--local-rank': _LAUNCHER,
    '--no-ddp-bb': 'Leave it out: buffers are never broadcast',
    '--dist-bn': 'Leave it out: running statistics are averaged over all processes before they are read',
    '--input-size': 'Use --img-size and --in-chans',
    '--drop-connect': 'Use --drop-path',
    '--drop-block': 'Use --model-kwargs drop_block_rate=RATE, for models that have it',
    '--bn-momentum': 'Use --model-kwargs bn_momentum=VALUE, for models that have it',
    '--bn-eps': 'Use --model-kwargs bn_eps=VALUE, for models that have it',
    '--no-resume-opt': 'Use --initial-checkpoint FILE to start from weights alone',
    '--start-epoch': 'Leave it out: --resume knows where a run stands',
    '--sched-on-updates': 'Leave it out: schedules are evaluated at every update',
    '--layer-decay-min-scale': 'Use --opt-kwargs layer_decay_min_scale=VALUE',
    '--layer-decay-no-opt-scale': 'Use --opt-kwargs layer_decay_no_opt_scale=VALUE',
    '--pretrained-path': 'Use --initial-checkpoint',
    '--checkpoint-hist': 'Use --num-best for weights, or --keep for states',
    '--recovery-interval': 'Use --checkpoint-every',
    '--log-wandb': 'Use --log-with wandb',
    '--wandb-project': _TRACKER,
    '--wandb-tags': _TRACKER,
    '--wandb-resume-id': _TRACKER,
    '--learning-rate': 'Use --lr',
    '--learning_rate': 'Use --lr',
    '--num-train-epochs': 'Use --epochs',
    '--num_train_epochs': 'Use --epochs',
    '--per_device_train_batch_size': 'Use --batch-size',
    '--output_dir': 'Use --output',
}
# Of timm's train.py, with nothing in their place.
MISSING = frozenset(
    f'--{name}'
    for name in (
        *('aug-repeats', 'aug-splits', 'jsd-loss', 'resplit', 'split-bn', 'color-jitter-prob', 'grayscale-prob'),
        *('gaussian-blur-prob', 'train-crop-mode', 'bce-pos-weight', 'head-init-scale', 'head-init-bias', 'fast-norm'),
        *('fuser', 'torchscript', 'synchronize-step', 'device-modules', 'model-ema-force-cpu', 'epoch-repeats'),
        *('lr-noise', 'lr-noise-pct', 'lr-noise-std', 'lr-cycle-mul', 'lr-cycle-decay', 'lr-cycle-limit', 'lr-k-decay'),
        *('cooldown-epochs', 'patience-epochs', 'warmup-prefix', 'worker-seeding', 'save-images', 'no-prefetcher'),
        *('use-multi-epochs-loader', 'tta', 'train-num-samples', 'val-num-samples', 'input-img-mode'),
        'dataset-trust-remote-code',
    )
)


def other_flag_hint(flag: str) -> str:
    """A hint for a flag of another program, which follows a sentence; empty if it is none of them.

    Args:
        flag: With its dashes.
    """
    if flag in INSTEAD:
        return f' {INSTEAD[flag]}.'
    if flag in MISSING:
        return " It is an option of timm's train.py that does not exist here: leave it out."
    return ''
