import pytest
import torch

from training.model import UNet3d, UNetConfig
from training.model.blocks import pack_voxels, unpack_voxels


def test_pack_by_hand() -> None:
    block = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert pack_voxels(block, 2).ravel().tolist() == list(range(8))
    assert pack_voxels(block, 2).shape == (1, 8, 1, 1, 1)


def test_unpack_undoes_pack() -> None:
    x = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(unpack_voxels(pack_voxels(x, 2), 2), x)


@pytest.mark.parametrize("patch", [1, 2])
def test_logits_have_the_input_size(patch: int) -> None:
    config = UNetConfig(widths=(4, 8, 8), patch=patch)
    network = UNet3d(config)
    x = torch.randn(1, 4, *(2 * config.stride, 3 * config.stride, config.stride))
    outputs = network(x)
    assert [o.shape[2:] for o in outputs.levels] == [
        x.shape[2:],
        tuple(n // (2 * patch) for n in x.shape[2:]),
    ]
    assert network.eval()(x).shape == (1, 3, *x.shape[2:])


def test_every_weight_learns() -> None:
    network = UNet3d(UNetConfig(widths=(4, 8, 8)))
    sum(o.square().mean() for o in network(torch.randn(1, 4, 32, 32, 32)).levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
