"""A classifier that Lightning trains, with and without ALFA.

    python examples/lightning_module.py --data uoft-cs/cifar10 --input-key img --task standard
    python examples/lightning_module.py --data uoft-cs/cifar10 --input-key img --task alfa

Data and options are those of own_loop.py. Lines that ALFA adds to the module are marked.
"""

import lightning as L
import timm
import torch
from own_loop import create_loaders, parse_args

import timm_alfa


class Classifier(L.LightningModule):
    """Trains a classifier with one of the methods.

    Args:
        task: Of a classifier.
        lr: Learning rate.
    """

    def __init__(self, task, lr):
        super().__init__()
        self.task = task  # ALFA: holds the model
        self.lr = lr
        self.losses, self.correct = [], []

    def training_step(self, batch, batch_idx):
        result = self.task(*batch)  # ALFA
        self.losses.append(result.get('loss_clean', result['loss']).detach())
        return result['loss']

    def optimizer_step(self, *args, **kwargs):
        """Once per update, also with accumulated gradients."""
        super().optimizer_step(*args, **kwargs)
        self.task.post_step()  # ALFA

    def configure_optimizers(self):
        groups = [{'params': self.task.model.parameters()}, *self.task.extra_param_groups()]  # ALFA
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9, weight_decay=5e-4)
        updates = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        return {'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.correct.append(self.task.model(images).argmax(1) == labels)

    def on_train_epoch_end(self):
        """Runs after the epoch's validation."""
        loss, accuracy = torch.stack(self.losses).mean(), torch.cat(self.correct).float().mean()
        print(f'epoch {self.current_epoch}  loss {loss:.4f}  accuracy {accuracy:.4f}', flush=True)
        self.losses, self.correct = [], []


def main(argv=None):
    args = parse_args(argv, description=__doc__)
    L.seed_everything(args.seed, verbose=False)

    # Data and model
    train_loader, val_loader, classes = create_loaders(args)
    model = timm.create_model(args.model, num_classes=len(classes))

    # ALFA
    options = {} if args.task == 'standard' else dict(blocks=args.blocks, unit='rms', step_size=args.step_size)
    task = timm_alfa.create_task(args.task, model, torch.nn.CrossEntropyLoss(), **options)

    # Train
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator='auto',
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Classifier(task, args.lr), train_loader, val_loader)
    return task


if __name__ == '__main__':
    main()
