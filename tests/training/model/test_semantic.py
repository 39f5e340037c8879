"""The semantic mechanisms: absent when off, without effect initially, each by its equation."""

import pytest
import torch

from tests.training.tiny import MECHANISMS, randomize_zeros, tiny
from training.model.attention import SemanticAttention
from training.model.bridge import SemanticBridge
from training.model.fusion import PixelFusion
from training.model.guidance import Film, SimilarityMap, attend

SAMPLE = torch.randn(2, 4, 32, 48, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "on", [(), *((name,) for name in MECHANISMS), tuple(MECHANISMS)], ids="+".join
)
def test_only_enabled_mechanisms_exist(on: tuple[str, ...]) -> None:
    network = tiny(*on)
    wanted = set().union(*(MECHANISMS[name] for name in on))
    assert {type(m) for m in network.modules()} & set().union(*MECHANISMS.values()) == wanted
    backbone = {
        name
        for name in network.state_dict()
        if name.split(".")[0] in ("encoder", "up", "decoder", "head", "side_heads")
    }
    assert (set(network.state_dict()) == backbone) == (not on)
    assert backbone == set(tiny().state_dict()), "checkpoints of the plain network fit"


@pytest.mark.parametrize("patch", [1, 2])
def test_initial_mechanisms_change_nothing(patch: int) -> None:
    plain, semantic = tiny(patch=patch).eval(), tiny(*MECHANISMS, patch=patch).eval()
    with torch.inference_mode():
        assert torch.allclose(plain(SAMPLE), semantic(SAMPLE), atol=1e-5)


@pytest.mark.parametrize("name", MECHANISMS)
def test_each_mechanism_has_an_effect_with_weights(name: str) -> None:
    with torch.inference_mode():
        assert (
            tiny().eval()(SAMPLE) - randomize_zeros(tiny(name)).eval()(SAMPLE)
        ).abs().max() > 1e-3


def test_every_weight_learns() -> None:
    network = randomize_zeros(tiny(*MECHANISMS)).train()
    outputs = network(SAMPLE)
    assert outputs.similarity.shape == (2, 3, 4, 6, 4)
    assert outputs.views.shape == (2, 3, 5)
    sum(o.square().mean() for o in [*outputs.levels, outputs.similarity, outputs.views]).backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    # A key's bias adds the same to every score, which does not change a softmax; rounding may
    # leave it a gradient.
    assert silent <= {"guidance.attention.image_key.bias", "guidance.attention.text_key.bias"}


def test_other_text_gives_other_logits() -> None:
    network = randomize_zeros(tiny(*MECHANISMS)).eval()
    with torch.inference_mode():
        same, other = network(SAMPLE, network.text), network(SAMPLE, network.text.flip(0))
        assert torch.equal(same, network(SAMPLE))
    assert (same - other).abs().max() > 1e-3


def test_fusion_by_hand() -> None:
    fusion = PixelFusion(2, 1, dropout=0.0).eval()
    with torch.no_grad():
        fusion.gate.weight.copy_(torch.tensor([[0.0, -1.0], [0.0, 0.0]]))
        fusion.background.copy_(torch.tensor([[7.0, 8.0]]))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).reshape(1, 2, 1, 1, 2)
    assert fusion(x).flatten().tolist() == [1, 7, 8, 8], (
        "zeros are filled; without modality 1 the gate of modality 0 is open"
    )
    x[0, 1, 0, 0, 0] = 3
    assert fusion(x)[0, 0, 0, 0, 0].item() == pytest.approx(2 / (1 + torch.e)), (
        "p = (1, 1): gate 2 sigmoid(-1)"
    )


def test_modality_dropout_hides_whole_modalities_but_never_all() -> None:
    fusion = PixelFusion(4, 8, dropout=0.9).train()
    kept = fusion(torch.ones(200, 32, 1, 1, 1)).reshape(200, 4, 8)
    assert ((kept == 0).all(2) | (kept == 1).all(2)).all()
    alive = (kept[:, :, 0] == 1).sum(1)
    assert alive.min() >= 1
    assert (alive == 1).any()
    assert torch.equal(fusion.eval()(torch.ones(1, 32, 1, 1, 1)), torch.ones(1, 32, 1, 1, 1))


def test_similarity_of_one_direction_by_hand() -> None:
    """Image vectors along, across and against the prompt: 10 (1, 0, -1) - 2."""
    similarity = SimilarityMap(2, 2, 1)
    with torch.no_grad():
        similarity.image.weight.copy_(torch.eye(2)[:, :, None, None, None])
        similarity.text.weight.copy_(torch.eye(2))
        similarity.image.bias.zero_()
        similarity.text.bias.zero_()
    x = torch.tensor([[3.0, 0.0, -5.0], [0.0, 2.0, 0.0]]).reshape(1, 2, 1, 1, 3)
    assert similarity(x, torch.tensor([[0.5, 0.0]])).flatten().tolist() == pytest.approx(
        [8, -2, -12], abs=1e-4
    )


def test_attention_and_film_by_hand() -> None:
    value = torch.tensor([[[1.0], [3.0]]])
    assert attend(torch.zeros(1, 1, 1), torch.zeros(1, 2, 1), value).item() == 2.0, (
        "equal scores: the mean"
    )
    assert attend(torch.ones(1, 1, 1), torch.tensor([[[0.0], [99.0]]]), value).item() == 3.0
    film = Film(2, 3, 3, (5, 4))(torch.ones(1, 2), torch.ones(1, 3, 3))
    assert [pair[0].shape[1] for pair in film] == [5, 4]
    assert not any(part.any() for pair in film for part in pair)


def test_gate_by_hand() -> None:
    """w_a lrelu(h) = log 3 at every voxel: m = 3/4, so lambda = 1 gives S (1 + 1/2)."""
    gate = SemanticAttention(1, 1, 0, 1)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.fill_(0.0)
        gate.encoded.weight.fill_(1.0)
        gate.gate.weight.fill_(float(torch.log(torch.tensor(3.0))))
        gate.strength.fill_(1.0)
    half = torch.ones(1, 1, 1, 1, 1)
    assert torch.allclose(
        gate(torch.full((1, 2, 2, 2, 2), 4.0), half, half, None), torch.tensor(6.0)
    )


def test_bridge_repeats_a_plane_along_its_axis() -> None:
    """One bright voxel changes its three rows, but not the corner outside its planes."""
    bridge = SemanticBridge(2, 3, 0)
    torch.nn.init.ones_(bridge.expand.weight)
    x = torch.zeros(1, 2, 9, 9, 9)
    empty = bridge(x)[0]
    x[0, :, 4, 4, 4] = 5.0
    change = (bridge(x)[0] - x - empty).abs().sum(1)[0]
    assert change[0, 4, 4] > 0
    assert change[4, 0, 4] > 0
    assert change[4, 4, 0] > 0
    assert change[0, 0, 0] == 0
