"""The ONNX file: another runtime gives the same logits for any number of images."""

import logging

import numpy as np
import pytest
import timm
import torch

from timm_alfa.errors import CheckpointError, ConfigError
from timm_alfa.training.report import onnx_export
from timm_alfa.training.report.onnx_export import check_onnx_file, write_onnx


@pytest.mark.sweep  # torch's exporter takes several seconds, whatever the model
def test_another_runtime_gives_the_same_logits(tmp_path, caplog, monkeypatch):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    model = timm.create_model('test_resnet', num_classes=3).train().to(memory_format=torch.channels_last)
    path = tmp_path / 'model.onnx'
    monkeypatch.setattr(onnx_export.logger, 'propagate', True)
    with caplog.at_level(logging.INFO, 'timm_alfa'):
        write_onnx(str(path), model, (3, 32, 32))
    assert "input batch x 3 x 32 x 32: logits differ from PyTorch's by at most " in caplog.text
    assert model.training and [file.name for file in tmp_path.iterdir()] == ['model.onnx']

    session = runtime.InferenceSession(str(path))
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape[1:]) == ('input', [3, 32, 32])
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32)
        (logits,) = session.run(['logits'], {'input': images.numpy()})
        assert np.allclose(logits, model.eval()(images).detach(), atol=1e-5)


@pytest.mark.parametrize(('scale', 'error', 'passes'), [(1, 5e-5, True), (1, 5e-4, False), (50, 5e-4, True)])
def test_logits_may_differ_by_rounding_only(monkeypatch, scale, error, passes):
    monkeypatch.setattr(onnx_export, 'find_spec', lambda package: True)
    monkeypatch.setattr(onnx_export, 'onnx_forward', lambda path, images: (images + error * (len(images) > 1)).numpy())
    images = torch.zeros(3, 10)
    images[2, 4] = scale
    if passes:
        assert 'at most 5.0e-0' in onnx_export.check_logits('m.onnx', torch.nn.Identity(), images)
    else:
        with pytest.raises(CheckpointError, match=r'differ by 0\.0005: the file was not written'):
            onnx_export.check_logits('m.onnx', torch.nn.Identity(), images)


def test_what_cannot_be_exported_is_refused_before(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r'--export-onnx .* must end in \.onnx'):
        check_onnx_file(str(tmp_path / 'model.pt'))
    monkeypatch.setattr(onnx_export, 'find_spec', lambda package: None)
    with pytest.raises(ConfigError, match=r"needs onnx and onnxscript: pip install 'timm_alfa\[onnx\]'"):
        check_onnx_file(str(tmp_path / 'model.onnx'))


def test_a_model_that_the_exporter_does_not_take_is_one_line(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError('no such operator\nand a long report')

    monkeypatch.setattr(onnx_export, 'onnx_export', fails)
    with pytest.raises(ConfigError, match=r'this model cannot be exported: no such operator\.$'):
        write_onnx(str(tmp_path / 'm.onnx'), torch.nn.Flatten(), (3, 8, 8))
    assert list(tmp_path.iterdir()) == []
