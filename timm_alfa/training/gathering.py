"""Small things of all processes together."""


def gather(accelerator, items: list) -> list:
    """The items of all processes in one list, on every process."""
    if accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object
    return gather_object(items)
