"""What a layer says of images, against its states computed step by step."""

import pytest
import timm
import torch

from nmlcli.errors import UsageError
from nmlcli.models.layers import LAST, tap
from nmlcli.models.networks import features_of
from nmlcli.models.schemes import Wanted

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(name, **options):
    torch.manual_seed(1)
    return timm.create_model(name, num_classes=0, **options).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(("pool", "direct"), [("mean", torch.mean), ("max", torch.amax)])
def test_a_map_of_a_resnet(pool, direct):
    module = network("resnet10t")
    x = module.maxpool(module.act1(module.bn1(module.conv1(IMAGES))))
    x = module.layer2(module.layer1(x))  # [2, 128, 8, 8]
    assert torch.allclose(tap(module, "layer2", pool)(IMAGES), direct(x, (2, 3)), atol=1e-5)


@pytest.mark.parametrize("layer", ["blocks.3", "norm"])
def test_tokens_of_a_vit_but_for_the_class_token(layer):
    module = network("test_vit", img_size=64)
    x = module.norm_pre(module._pos_embed(module.patch_embed(IMAGES)))
    for block in module.blocks[:4]:
        x = block(x)
    x = module.norm(module.blocks[4:](x)) if layer == "norm" else x
    direct = {"mean": x[:, 1:].mean(1), "max": x[:, 1:].amax(1), "cls": x[:, 0], "last": x[:, -1]}
    for pool, expected in direct.items():
        assert torch.allclose(tap(module, layer, pool)(IMAGES), expected, atol=1e-5), pool


def test_patches_before_the_class_token_joins_them_all_count():
    module = network("vit_tiny_patch16_224", img_size=64, depth=1, embed_dim=12, num_heads=3)
    patches = module.patch_embed(IMAGES)  # [2, 16, 12]
    assert torch.allclose(tap(module, "patch_embed", "mean")(IMAGES), patches.mean(1), atol=1e-5)
    module = network("test_vit", img_size=64)
    patches = module.patch_embed(IMAGES)  # [2, 4, 4, 64], since it takes images of any size
    assert torch.allclose(tap(module, "patch_embed", "mean")(IMAGES), patches.mean((1, 2)), atol=1e-5)


def test_a_layer_that_gives_the_class_token_alone():
    module = torch.nn.Sequential(torch.nn.Identity())
    module.num_prefix_tokens = 1
    token = torch.randn(2, 1, 8)
    assert torch.equal(tap(module, "0", "mean")(token), token[:, 0])


def test_a_map_of_a_network_that_keeps_channels_last():
    module = network(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, embed_dim=16, depths=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
    )  # fmt: skip
    maps = module.patch_embed(IMAGES)  # [2, 16, 16, 16]
    first = module.layers[0](maps)
    second = module.layers[1](first)  # [2, 8, 8, 32]
    assert torch.allclose(tap(module, "layers.0", "mean")(IMAGES), first.mean((1, 2)), atol=1e-5)
    assert torch.allclose(tap(module, "layers.1", "max")(IMAGES), second.amax((1, 2)), atol=1e-5)
    convolved = module.patch_embed.proj(IMAGES)  # a convolution's own map, as many channels as pixels
    direct = convolved.mean((2, 3))
    assert torch.allclose(tap(module, "patch_embed.proj", "mean")(IMAGES), direct, atol=1e-5)
    with pytest.raises(UsageError, match=r"gives 32 rows of 2 images: take the layer around it"):
        tap(module, "layers.0.blocks.0.attn", "mean")(IMAGES)  # by windows


def test_a_map_inside_a_block_that_turns_channels_last():
    module = network("convnext_atto", conv_mlp=False)
    states = {}
    block = module.stages[1].blocks[0]
    block.norm.register_forward_hook(lambda *args: states.update(norm=args[2]))
    block.register_forward_hook(lambda *args: states.update(block=args[2]))
    module(IMAGES)
    assert states["norm"].shape == (2, 8, 8, 80)
    assert states["block"].shape == (2, 80, 8, 8)
    found = tap(module, "stages.1.blocks.0.norm", "mean")(IMAGES)
    assert torch.allclose(found, states["norm"].mean((1, 2)), atol=1e-5)
    found = tap(module, "stages.1.blocks.0", "mean")(IMAGES)
    assert torch.allclose(found, states["block"].mean((2, 3)), atol=1e-5)


def test_what_a_network_pools_itself():
    module = network("test_vit", img_size=64)
    for wanted, token in ((Wanted(pool="cls"), 0), (Wanted(pool="last"), -1)):
        encode, facts = features_of(module, wanted)
        assert torch.allclose(encode(IMAGES), module.forward_features(IMAGES)[:, token], atol=1e-5)
        assert facts == {"layer": LAST, "pool": wanted.pool}
    encode, facts = features_of(module, Wanted())
    assert facts == {"layer": "pre_logits"}
    assert torch.allclose(encode(IMAGES), module(IMAGES), atol=1e-5)
    _, facts = features_of(module, Wanted(layer="norm"))
    assert facts == {"layer": "norm", "pool": "mean"}


def test_rows_stay_as_they_are():
    module = network("test_vit", img_size=64)
    assert torch.equal(tap(module, "head_drop", "mean")(IMAGES), module(IMAGES))


@pytest.mark.parametrize(
    ("name", "layer", "pool", "words"),
    [
        ("resnet10t", "layer22", "mean", "no layer 'layer22': it has layer2"),
        ("resnet10t", "", "mean", "no layer ''"),
        ("resnet10t", "layer2", "cls", "gives a map, which has no cls: take --pool mean or max"),
        ("resnet10t", "layer2", "last", "which has no last"),
        ("test_vit", "blocks.0.attn.attn_drop", "mean", "attn_drop gives no tensor"),  # never called
    ],
)
def test_layers_that_lead_nowhere(name, layer, pool, words):
    with pytest.raises(UsageError) as caught:
        tap(network(name, **({"img_size": 64} if name == "test_vit" else {})), layer, pool)(IMAGES)
    assert words in str(caught.value)


def test_a_layer_that_gives_several_things_is_none():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, x

    module = torch.nn.Sequential(Pair())
    with pytest.raises(UsageError, match="layer 0 gives no tensor: take one inside it"):
        tap(module, "0", "mean")(IMAGES)
    with pytest.raises(UsageError, match="no tokens and no square map"):
        tap(torch.nn.Sequential(torch.nn.Identity()), "0", "mean")(torch.zeros(2, 3, 4, 5))


def test_what_comes_after_a_layer_is_not_computed():
    module, called = network("resnet10t"), []
    module.layer2.register_forward_hook(lambda *_: called.append("layer2"))
    module.layer3.register_forward_hook(lambda *_: called.append("layer3"))
    encode = tap(module, "layer2", "mean")
    hooks = len(module.layer2._forward_hooks)
    assert torch.equal(encode(IMAGES), encode(IMAGES))
    assert called == ["layer2", "layer2"]
    assert len(module.layer2._forward_hooks) == hooks  # nothing is left behind
    assert module(IMAGES).shape == (2, 512)


def test_other_number_formats_and_memory_layouts():
    module = network("resnet10t")
    expected = tap(module, "layer3", "mean")(IMAGES)
    module.to(memory_format=torch.channels_last)
    images = IMAGES.to(memory_format=torch.channels_last)
    assert torch.allclose(tap(module, "layer3", "mean")(images), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = tap(module, "layer3", "mean")(images)
    assert (rough.float() - expected).abs().max() < 0.05 * expected.abs().max()
