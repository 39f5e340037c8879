import pytest
import torch

from training.model import NORMS, UNet3d, UNetConfig
from training.model.blocks import ConvBlock, pack_voxels, unpack_voxels


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


@pytest.mark.parametrize("norm", NORMS)
def test_every_weight_learns(norm: str) -> None:
    network = UNet3d(UNetConfig(widths=(4, 8, 8), norm=norm))
    sum((o - 1).square().mean() for o in network(torch.randn(1, 4, 32, 32, 32)).levels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_batch_norm_makes_logits_independent_of_the_crop_size() -> None:
    """In eval mode a voxel's logits depend only on its surroundings."""
    x = torch.randn(1, 4, 96, 32, 32)
    for norm, same in (("batch", True), ("frozen", True), ("instance", False)):
        torch.manual_seed(0)
        network = UNet3d(UNetConfig(widths=(4, 8), norm=norm)).eval()
        with torch.inference_mode():
            full, crop = network(x)[:, :, 32:64], network(x[:, :, 16:80])[:, :, 16:48]
        assert torch.allclose(full, crop, atol=1e-5) == same, norm


def test_frozen_batch_norm_computes_the_same_in_training() -> None:
    network = UNet3d(UNetConfig(widths=(4, 8, 8), norm="frozen"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 4, 32, 32, 32)
    learning = network(x).levels[0]  # not `.train()` first: Lightning does not call it
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    # Not bit for bit: training keeps channels last in memory.
    assert torch.allclose(learning, network.eval()(x), atol=1e-5)


def test_film_after_batch_norm_differs_by_case() -> None:
    block = ConvBlock(2, 3, norm="batch").eval()
    x = torch.randn(1, 2, 8, 8, 8).expand(2, -1, -1, -1, -1)
    gamma, beta = torch.randn(2, 3, 1, 1, 1), torch.randn(2, 3, 1, 1, 1)
    both = block(x, (gamma, beta))
    for case in range(2):
        alone = block(x[:1], (gamma[case : case + 1], beta[case : case + 1]))
        torch.testing.assert_close(both[case : case + 1], alone)
    assert not torch.allclose(both[0], both[1])
