"""Maps whose height and width run along other dimensions: the field is that of the same map, channels first."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from daukit.erf import effective_receptive_field, theoretical_receptive_field

COMMAND = "erf"
INPUTS = torch.randn(2, 2, 12, 18, generator=torch.Generator().manual_seed(0))


class Behind(nn.Module):
    """A fixed convolution, and its map in another layout, as the module ``end`` gives it."""

    def __init__(self, arrange, stride=(1, 1), end=None):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.stem = nn.Conv2d(2, 6, 3, stride=stride, padding=1, bias=False)
        self.stem.weight = nn.Parameter(torch.randn(6, 2, 3, 3, generator=generator))
        self.arrange, self.end = arrange, end or nn.Identity()

    def forward(self, x):
        return self.end(self.arrange(self.stem(x)))


def tokens(x):
    return x.flatten(2).transpose(1, 2)


KNOWN = {
    "(N, C, h, w)": lambda x: x,
    "(N, h, w, C)": lambda x: x.permute(0, 2, 3, 1),
    "(N, C, w, h)": lambda x: x.transpose(2, 3),
    "(N, w, C, h)": lambda x: x.permute(0, 3, 1, 2),
    "(N, h*w, C)": tokens,
    "(N, C, h*w)": lambda x: x.flatten(2),
    "(N, h, w)": lambda x: x.mean(1),
    "(N, h, C, w, C)": lambda x: x.unflatten(1, (2, 3)).permute(0, 3, 1, 4, 2),
    "(N, C*h, w)": lambda x: x.flatten(1, 2),
}


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("layout", KNOWN)
def test_a_known_layout_has_the_field_of_the_same_map_channels_first(layout, stride):
    model = Behind(KNOWN[layout], stride)
    words = {"(N, C*h, w)": "(N, h, w)"}.get(layout, layout)  # channels that share a dimension go without saying
    first = Behind((lambda x: x.mean(1, keepdim=True)) if layout == "(N, h, w)" else (lambda x: x), stride)
    (expected,) = effective_receptive_field(first, "end", INPUTS)
    for crop in (True, False):
        (field,) = effective_receptive_field(model, "end", INPUTS, crop=crop)
        assert (field.layout, field.assumed) == (words, False)
        assert torch.allclose(field.map, expected.map, rtol=1e-6, atol=1e-12)
        assert field.center == expected.center and field.theory == expected.theory


@pytest.mark.parametrize("side", [(1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("layout", KNOWN)
@pytest.mark.parametrize("turned", [False, True])
def test_a_map_of_a_single_row_or_column_has_its_field_in_every_layout(layout, side, turned):
    def arrange(x):
        return KNOWN[layout](x.transpose(2, 3) if turned else x)

    image = INPUTS[:1, :, : side[0], : side[1]]
    keep = {"keepdim": True} if layout == "(N, h, w)" else None
    first = Behind((lambda x: x.mean(1, **keep)) if keep else (lambda x: x))
    (expected,) = effective_receptive_field(first, "end", image)
    (field,) = effective_receptive_field(Behind(arrange), "end", image)
    assert torch.allclose(field.map, expected.map, rtol=1e-6, atol=1e-12)


def test_a_known_layout_is_cropped_like_any_other():
    sizes = []
    model = Behind(tokens)
    model.stem.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape[2:])))
    effective_receptive_field(model, "end", INPUTS)
    assert sizes[-1] == (3, 3)


class Transformer(nn.Module):
    """Tokens through a linear layer and attention, with a class token in front where that is wanted."""

    def __init__(self, extra):
        super().__init__()
        self.stem, self.norm, self.linear = nn.Conv2d(2, 6, 3, stride=3), nn.LayerNorm(6), nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.extra = nn.Parameter(torch.zeros(1, extra, 6))
        self.end, self.last = nn.Identity(), nn.Identity()

    def forward(self, x):
        x = tokens(self.stem(x))
        x = self.linear(self.norm(torch.cat([self.extra.expand(len(x), -1, -1), x], 1) if self.extra.numel() else x))
        x = self.end(x)
        return self.last(self.attention(x, x, x)[0])


def test_linear_layers_and_attention_keep_the_layout():
    torch.manual_seed(0)
    end, last = effective_receptive_field(Transformer(0), ["end", "last"], INPUTS)
    assert end.layout == last.layout == "(N, h*w, C)" and not end.assumed
    assert end.theory.size == (3, 3) and last.theory.size == (None, None)
    assert end.contours[-1].area <= 9 and end.center == (7, 10)


def test_tokens_say_where_the_map_is_and_those_before_it_are_left_out():
    torch.manual_seed(0)
    model = Transformer(2)
    with pytest.raises(ValueError, match=r"\(1, 26, 6\), which does not tell .* pass tokens=\(height, width\)"):
        effective_receptive_field(model, "end", INPUTS)
    (field,) = effective_receptive_field(model, "end", INPUTS, tokens=(4, 6))
    rows, columns = field.map.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 8, 9, 11)  # the patch of token (2, 3)
    assert not field.assumed and field.layout == "(N, h*w, C)"
    with pytest.raises(ValueError, match="holds no 5 x 6 tokens; correct tokens"):
        effective_receptive_field(model, "end", INPUTS, tokens=(5, 6))
    with pytest.raises(ValueError, match="a map of 12 x 18 positions, not 4 x 6"):
        effective_receptive_field(Behind(tokens), "end", INPUTS, tokens=(4, 6))


def rolled(x):
    """What shifted windows do: nobody follows it."""
    return x.roll((1, 1), (-2, -1)).roll((-1, -1), (-2, -1))


@pytest.mark.parametrize(("layout", "back"), [("(N, C, h, w)", False), ("(N, h, w, C)", True)])
def test_an_unknown_layout_is_the_one_with_the_inputs_proportions_and_said_to_be_assumed(layout, back):
    arrange = (lambda x: rolled(x).permute(0, 2, 3, 1)) if back else rolled
    (field,) = effective_receptive_field(Behind(arrange), "end", INPUTS)
    (expected,) = effective_receptive_field(Behind(lambda x: x), "end", INPUTS)
    assert (field.layout, field.assumed, field.theory) == (layout, True, None)
    assert torch.allclose(field.map, expected.map, rtol=1e-6, atol=1e-12)
    (given,) = effective_receptive_field(Behind(arrange), "end", INPUTS, tokens=(12, 18))
    assert not given.assumed and torch.equal(given.map, field.map)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.permute(2, 0, 1, 3)[: len(x)],  # height takes the place of the images
        lambda x: F.unfold(x, 3),  # windows, of which nothing is known
        lambda x: x.mean(3),
    ],
)
def test_what_cannot_be_probed_is_refused_with_the_layers_name(arrange):
    with pytest.raises(ValueError, match="layer 'end' gives"):
        effective_receptive_field(Behind(arrange), "end", INPUTS[:, :, :, :12])


def test_the_theoretical_field_is_known_for_every_layout():
    for arrange in KNOWN.values():
        (field,) = theoretical_receptive_field(Behind(arrange, (2, 3)), "end", INPUTS[:1])
        assert (field.size, field.stride, field.center) == ((3, 3), (2, 3), (0, 0))


NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.stem, self.head = kind, nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 8)
    def forward(self, x):
        x = self.stem(x)
        x = x.roll(1, 2) if self.kind == "lost" else x
        x = x.permute(0, 2, 3, 1)
        return self.head(torch.cat([x.flatten(1, 2)[:, :1], x.flatten(1, 2)], 1) if self.kind == "class" else x)
def build(kind="last"): return Net(kind)
"""


@pytest.mark.parametrize("kind", ["last", "lost", "class"])
def test_the_command_follows_says_and_asks(run, tmp_path, kind):
    (tmp_path / "net.py").write_text(NET)
    options = ("--model", f"{tmp_path / 'net.py'}:build", "--model-arg", f"kind={kind}", "--size", "9", "--images", "2")
    code, out, err = run(*options, "--layer", "head", "--json", *(["--tokens", "9"] if kind == "class" else []))
    assert code == 0, err
    (layer,) = json.loads(out)["layers"]
    assert layer["contours"][-1]["area"] <= 9
    assert layer["layout"] == ("(N, h*w, C)" if kind == "class" else "(N, h, w, C)")
    assert layer["layout_assumed"] == (kind == "lost") == ("its output is taken as (N, h, w, C)" in err)
    if kind == "class":
        code, out, err = run(*options, "--layer", "head")
        assert (code, out) == (1, "") and "pass --tokens H,W" in err
        code, out, err = run(*options, "--layer", "head", "--tokens", "a")
        assert code == 2 and "--tokens" in err
