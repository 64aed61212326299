"""Caffe's trained files: ``.caffemodel``, with the ``.prototxt`` where it helps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, from_model
from daukit.errors import CheckpointError
from daukit.importers.caffe_units import UNIT_TYPES, Offsets, Settings, layer_of_blobs, settings_of
from daukit.importers.layers import assemble, check_finite, recorded
from daukit.importers.messages import Message, parse, parse_text
from daukit.models import create_model
from daukit.models.alexnet import UNITS
from daukit.models.structure import replace_module
from daukit.nn import DAUConv2d
from daukit.preprocessing import Preprocessing

MEAN = (104.0, 117.0, 123.0)
"""Caffe's usual mean of ImageNet, blue first."""

_DAU_LAYERS = ("conv2", "conv3", "conv4", "conv5")
_PLAIN_LAYERS = ("conv1", "fc6", "fc7", "fc8")
_USUAL_SIZES: dict[str, Any] = {"channels": [96, 256, 384, 384, 256], "hidden": 4096, "input_size": [227, 227]}
_PLAIN_TYPES = ("Convolution", "Deconvolution", "InnerProduct")


def read_caffe(path: Path, *, prototxt: Path | None = None, offsets: Offsets = "auto") -> Checkpoint:
    """Import a ``.caffemodel`` with ``DAUConvolution`` or ``GaussianConv`` layers.

    Plain layers keep their weights under their names. Where all layers are those of DAU-AlexNet, the result is that
    network.

    Args:
        path: the ``.caffemodel``.
        prototxt: its network's text, for what the weights file does not repeat; default: the file of the same name
            beside it, if there is one.
        offsets: whether displacements count from the window's centre or corner; ``"auto"``: as the file says, or, where
            it is silent, from the corner if none is negative and one exceeds half the window.
    """
    net = parse("NetParameter", path.read_bytes(), path)
    if net.layers and not net.layer:
        raise CheckpointError(f"{path}: is of Caffe's V1 format; upgrade it with Caffe's upgrade_net_proto_binary")
    if prototxt is None and path.with_suffix(".prototxt").is_file():
        prototxt = path.with_suffix(".prototxt")
    described = _described(prototxt)
    layers: dict[str, DAUConv2d] = {}
    others: dict[str, Tensor] = {}
    notes = _Notes()
    for message in net.layer:
        where = f"{path}: layer {message.name!r}"
        blobs = [_tensor(blob, where) for blob in message.blobs]
        if message.type in UNIT_TYPES and blobs:
            if message.name in layers:
                raise CheckpointError(f"{where}: there are two layers of this name")
            settings = settings_of(message.type, [message, *described.get(message.name, ())], where)
            layers[message.name], is_corner = layer_of_blobs(blobs, settings, offsets, where)
            notes.add(message.name, settings, offsets, is_corner)
            continue
        for key, tensor in _plain(message, blobs, where).items():
            if key in others:
                raise CheckpointError(f"{where}: there are two layers of this name")
            others[key] = tensor
    arguments = {
        "source": "caffe",
        "prototxt": prototxt and prototxt.name,
        "offsets": offsets,
        "notes": notes.sentences(),
    }
    transform = _transform([*net.layer, *(layer for same in described.values() for layer in same)])
    network = _alexnet(path, layers, others, transform, arguments)
    return network or assemble(path, layers, others, arguments, preprocessing=_preprocessing(transform))


class _Notes:
    """What the user should know of single layers, collected into one sentence for all that share it."""

    def __init__(self) -> None:
        self._layers: dict[str, list[str]] = {}

    def add(self, name: str, settings: Settings, offsets: Offsets, is_corner: bool) -> None:
        if offsets == "auto" and settings.centred is None:
            place, other = ("corner", "centred") if is_corner else ("centre", "corner")
            self._note(
                f"displacements are taken to count from the window's {place}, judging by their values; the file does "
                f"not say (--offsets {other} takes them otherwise)",
                name,
            )
        if settings.kernel_size is None:
            self._note("kernel_size is not in the file, so the layer has no limit; pass the prototxt", name)
        elif settings.pad is not None and settings.pad != settings.kernel_size // 2:
            self._note(
                f"pad {settings.pad} with kernel_size {settings.kernel_size} changes the map's size in Caffe; here the "
                "output is as large as the input",
                name,
            )

    def _note(self, sentence: str, name: str) -> None:
        self._layers.setdefault(sentence, []).append(name)

    def sentences(self) -> list[str]:
        return [f"{', '.join(names)}: {sentence}" for sentence, names in self._layers.items()]


def _described(prototxt: Path | None) -> dict[str, list[Message]]:
    """Layers of the prototxt by name; one name may stand for several, as the data of training and of testing do."""
    if prototxt is None:
        return {}
    try:
        text = prototxt.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{prototxt}: cannot be read as text: {error}") from None
    layers: dict[str, list[Message]] = {}
    for layer in parse_text("NetParameter", text, prototxt).layer:
        layers.setdefault(layer.name, []).append(layer)
    return layers


def _tensor(blob: Message, where: str) -> Tensor:
    shape = list(blob.shape.dim) if blob.HasField("shape") else [blob.num, blob.channels, blob.height, blob.width]
    dtype, chunks = (torch.float64, blob.double_data) if blob.double_data else (torch.float32, blob.data)
    data = bytearray().join(chunks)
    if min(shape, default=1) < 1 or len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"{where}: a blob of shape {shape} must hold {max(0, math.prod(shape))} values of {dtype.itemsize} bytes, "
            f"got {len(data)} bytes"
        )
    return torch.frombuffer(data, dtype=dtype).reshape(shape).float()


def _plain(message: Message, blobs: list[Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of a layer that has no units: weight and bias where they are that, numbered blobs otherwise."""
    if message.type not in _PLAIN_TYPES or len(blobs) > 2:
        return {f"{message.name}.blob{i}": blob for i, blob in enumerate(blobs)}
    named = {f"{message.name}.{key}": blob for key, blob in zip(("weight", "bias"), blobs, strict=False)}
    for key, tensor in named.items():
        if key.endswith(".bias"):
            named[key] = tensor.flatten()
        elif tensor.dim() < 2:
            raise CheckpointError(f"{where}: weights of shape {tuple(tensor.shape)}; there must be two axes at least")
        elif message.type == "InnerProduct":
            matrix = tensor.reshape(-1, tensor.shape[-1])  # old files have (1, 1, O, C)
            named[key] = matrix.T.contiguous() if message.inner_product_param.transpose else matrix
    return named


def _transform(layers: list[Message]) -> Message | None:
    """The first transformation of images that says anything."""
    return next((layer.transform_param for layer in layers if layer.transform_param.ListFields()), None)


def _preprocessing(transform: Message | None) -> Preprocessing | None:
    """What the images went through, where the file says it all: the mean of each channel and the size."""
    if transform is None or len(transform.mean_value) != 3 or not transform.crop_size or not transform.scale > 0:
        return None
    return Preprocessing(
        tuple(transform.mean_value), (1 / transform.scale,) * 3, "bgr", (transform.crop_size,) * 2, (0.0, 255.0)
    )


def _alexnet(
    path: Path,
    layers: Mapping[str, DAUConv2d],
    others: Mapping[str, Tensor],
    transform: Message | None,
    arguments: dict[str, Any],
) -> Checkpoint | None:
    """The paper's DAU-AlexNet with these tensors, or None where names or shapes are not its own."""
    names = {f"{name}.{key}" for name in _PLAIN_LAYERS for key in ("weight", "bias")}
    if set(layers) != set(_DAU_LAYERS) or set(others) != names or any(la.bias is None for la in layers.values()):
        return None
    crop = int(transform.crop_size) if transform is not None and transform.crop_size else _USUAL_SIZES["input_size"][0]
    config = _config(layers, others, crop)
    tensors = {**others, **{f"{n}.{k}": t for n, layer in layers.items() for k, t in layer.state_dict().items()}}
    try:
        with torch.device("meta"):  # shapes only: the tensors come from the file
            network = create_model("alexnet_dau", **config)
    except ValueError:  # an image too small for it
        return None
    if {k: t.shape for k, t in network.state_dict().items()} != {k: t.shape for k, t in tensors.items()}:
        return None
    check_finite(path, tensors)
    for name in _DAU_LAYERS:
        replace_module(network, name, layers[name])
    network.load_state_dict(dict(others), strict=False, assign=True)
    told = _preprocessing(transform)
    if told is None:
        arguments["notes"].append(f"the images' mean is not in the file; the usual one {MEAN} (blue first) is recorded")
        told = Preprocessing(MEAN, (1.0, 1.0, 1.0), "bgr", (crop, crop), (0.0, 255.0))
    with torch.device("meta"):
        checkpoint = from_model(network, preprocessing=told)
    return recorded(checkpoint, path, arguments)


def _config(layers: Mapping[str, DAUConv2d], others: Mapping[str, Tensor], crop: int) -> dict[str, Any]:
    """Options of ``alexnet_dau`` for these layers."""
    counts = tuple(layers[name].units for name in _DAU_LAYERS)
    size = next((size for size, units in UNITS.items() if units == counts), None)
    sizes = {
        "channels": [others["conv1.bias"].numel(), *(layers[name].out_channels for name in _DAU_LAYERS)],
        "hidden": others["fc6.bias"].numel(),
        "input_size": [crop, crop],
    }
    return {
        "num_classes": others["fc8.bias"].numel(),
        **({"units": list(counts)} if size is None else {"size": size}),
        **{name: value for name, value in sizes.items() if value != _USUAL_SIZES[name]},
    }
