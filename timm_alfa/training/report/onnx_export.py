"""A model as an ONNX file, which other runtimes than PyTorch read."""

import copy
from importlib.util import find_spec
from pathlib import Path

import torch
from timm.utils.onnx import onnx_export, onnx_forward
from torch import nn

from timm_alfa.errors import CheckpointError, ConfigError, first_line
from timm_alfa.training.report.output_file import check_output_file, output_file
from timm_alfa.utils.console import logger

FLAG = '--export-onnx'
NEEDED, CHECKED_WITH = ('onnx', 'onnxscript'), 'onnxruntime'
TOLERANCE = 1e-4


def check_onnx_file(path: str) -> None:
    """Checks that a model can be exported to a file.

    Raises:
        ConfigError: The file cannot be written, or a package is missing.
    """
    check_output_file(FLAG, path, ('.onnx',))
    if missing := [package for package in NEEDED if find_spec(package) is None]:
        raise ConfigError(f"{FLAG} needs {' and '.join(missing)}: pip install 'timm_alfa[onnx]'.")


def write_onnx(path: str, model: nn.Module, input_size: tuple[int, int, int]) -> None:
    """Writes a model with torch's exporter: normalized images `input` to `logits`, for any number of images.

    The logits are compared with the model's if onnxruntime is installed.

    Args:
        path: Of the file.
        model: Stays as it is.
        input_size: Channels, height and width.

    Raises:
        ConfigError: The model cannot be exported, or the file cannot be written.
        CheckpointError: What was exported gives other logits.
    """
    model = copy.deepcopy(model).to('cpu', torch.float32).to(memory_format=torch.contiguous_format).eval()
    images = torch.randn(3, *input_size, generator=torch.Generator().manual_seed(0))

    with output_file(FLAG, path) as temporary:
        try:
            onnx_export(
                model,
                str(temporary),
                images[:2],
                use_dynamo=True,
                check=False,
                input_names=['input'],
                output_names=['logits'],
                external_data=False,
            )
        except Exception as error:  # whatever a module or an operator leads the exporter to
            raise ConfigError(f'{FLAG}: this model cannot be exported: {first_line(error)}.') from error
        found = check_logits(temporary, model, images)
    logger.info("ONNX file '%s', input %s: %s", path, ' x '.join(map(str, ('batch', *input_size))), found)


@torch.no_grad()
def check_logits(path: Path, model: nn.Module, images: torch.Tensor) -> str:
    """Compares a file with its model, on one image and on several, and says how.

    Args:
        images: Normalized, [B, C, H, W].

    Raises:
        CheckpointError: The logits differ by more than 1e-4, or by more than that share of the largest.
    """
    if find_spec(CHECKED_WITH) is None:
        return f'not checked, as {CHECKED_WITH} is not installed'
    largest = 0.0
    for batch in (images[:1], images):
        expected = model(batch)
        difference = (torch.from_numpy(onnx_forward(str(path), batch)) - expected).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise CheckpointError(
                f'{FLAG}: the exported model gives other logits than PyTorch, they differ by {difference:.3g}: '
                'the file was not written. Try other versions of torch and onnxscript.'
            )
        largest = max(largest, difference)
    return f"logits differ from PyTorch's by at most {largest:.1e}"
