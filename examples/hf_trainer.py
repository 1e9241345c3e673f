"""An image classifier that the Trainer of transformers trains, with and without ALFA.

    python examples/hf_trainer.py --data uoft-cs/cifar10 --input-key img --task standard
    python examples/hf_trainer.py --data uoft-cs/cifar10 --input-key img --task alfa

Data and options are those of own_loop.py; `--model` is a classifier of the Hub or a folder that
`AutoModelForImageClassification` reads, and a small ViT without weights if it is left out. One process only.
"""

import numpy as np
import torch
from own_loop import load_split, parse_args, transforms
from transformers import (
    AutoModelForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

import timm_alfa


class PostStep(TrainerCallback):
    """Tells a task of every optimizer step."""

    def __init__(self, task):
        self.task = task

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.task.post_step()


class TaskTrainer(Trainer):
    """Trains with the loss of a task. Evaluation is the Trainer's own."""

    def __init__(self, *args, task, **kwargs):
        super().__init__(*args, **kwargs)
        self.task = task
        self.losses = []
        self.model_accepts_loss_kwargs = False  # the task's loss is a mean: the Trainer divides accumulated ones
        self.add_callback(PostStep(task))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs)
        result = self.task(inputs['pixel_values'], inputs['labels'])
        self.losses.append(result.get('loss_clean', result['loss']).detach())
        return (result['loss'], result['output']) if return_outputs else result['loss']

    def create_optimizer(self, *args, **kwargs):
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        for group in self.task.extra_param_groups() if is_new else []:
            optimizer.add_param_group(group)
        return optimizer

    def evaluate(self, *args, **kwargs):
        metrics = super().evaluate(*args, **kwargs)
        loss, self.losses = torch.stack(self.losses).mean(), []
        print(f'epoch {self.state.epoch:.0f}  loss {loss:.4f}  accuracy {metrics["eval_accuracy"]:.4f}', flush=True)
        return metrics


def create_model(args, classes):
    """A classifier of the Hub, or a small ViT."""
    labels = dict(num_labels=len(classes), id2label=dict(enumerate(classes)))
    if args.model:  # weights without code, which the user named
        return AutoModelForImageClassification.from_pretrained(  # nosec B615
            args.model, **labels, ignore_mismatched_sizes=True
        )
    sizes = dict(hidden_size=96, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4)
    return ViTForImageClassification(ViTConfig(image_size=args.img_size, patch_size=4, **sizes, **labels))


def collate(samples):
    """The arguments of the model, by name."""
    images = torch.stack([sample['image'] for sample in samples])
    return {'pixel_values': images, 'labels': torch.tensor([sample['label'] for sample in samples])}


def accuracy(prediction):
    return {'accuracy': float(np.mean(prediction.predictions.argmax(1) == prediction.label_ids))}


def main(argv=None):
    args = parse_args(argv, description=__doc__, model=None, blocks='vit.layers.3', lr=1e-3)
    torch.manual_seed(args.seed)

    # Options of the Trainer
    training_args = TrainingArguments(
        output_dir='build/hf_trainer',  # nothing is saved
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.lr,
        seed=args.seed,
        eval_strategy='epoch',
        save_strategy='no',
        logging_strategy='no',
        report_to='none',
        disable_tqdm=True,
        remove_unused_columns=False,  # the data set's columns are not the model's arguments
    )

    # Data and model
    train_transform, val_transform = transforms(args.img_size)
    train, classes = load_split(args, 'train', train_transform)
    val, _ = load_split(args, args.val_split, val_transform)
    model = create_model(args, classes).to(training_args.device)  # before the task, which may hold parameters

    # The task
    options = {} if args.task == 'standard' else dict(blocks=args.blocks, unit='rms', step_size=args.step_size)
    task = timm_alfa.create_task(args.task, model, torch.nn.CrossEntropyLoss(), **options)

    # Train
    data = dict(train_dataset=train, eval_dataset=val, data_collator=collate, compute_metrics=accuracy)
    TaskTrainer(model, training_args, task=task, **data).train()
    return task


if __name__ == '__main__':
    main()
