"""Trained files of Caffe: ``.caffemodel``, with the ``.prototxt`` for what it does not repeat."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from daukit.checkpoint import Checkpoint, from_model
from daukit.errors import CheckpointError, in_words_of_caller
from daukit.importers.caffe_units import UNIT_TYPES, Offsets, Settings, layer_of_blobs, settings_of
from daukit.importers.layers import assemble, check_finite, check_sizes, reading, recorded
from daukit.importers.messages import Message, parse, read_text_message
from daukit.importers.remarks import Remarks, single_precision
from daukit.limits import MAX_SIZE
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


def is_caffe(path: Path) -> bool:
    """True if a file's name says that it is Caffe's: protobuf has no mark to recognise it by."""
    return path.suffix == ".caffemodel"


def read_caffe(path: Path, *, prototxt: Path | None = None, offsets: Offsets = "auto") -> Checkpoint:
    """Import a ``.caffemodel`` with ``DAUConvolution`` or ``GaussianConv`` layers.

    Plain layers keep their weights under their names. If all layers are those of DAU-AlexNet, the result is that
    network.

    Args:
        path: the ``.caffemodel``.
        prototxt: its network's text, for what the weights file does not repeat; default: the file of the same name
            beside it, if there is one.
        offsets: origin of displacements: the window's centre or its corner. ``"auto"``: as the file says; if it does
            not say, the corner if no displacement is negative and one exceeds half the window.
    """
    with reading(path):
        data = path.read_bytes()
        digest, net = hashlib.sha256(data).hexdigest(), parse("NetParameter", data, path)
        del data
        _check_version(net, path)
        if prototxt is None and path.with_suffix(".prototxt").is_file():
            prototxt = path.with_suffix(".prototxt")
        described = _described(prototxt)
        remarks = Remarks()
        layers, others = _layers(net, described, offsets, path, remarks)
        transform = _transform([*net.layer, *(layer for same in described.values() for layer in same)])
        notes = remarks.sentences()
        network = _alexnet(path, layers, others, transform, notes)
        preprocessing = _preprocessing(transform, path)
    arguments = {"source": "caffe", "prototxt": prototxt and prototxt.name, "offsets": offsets, "notes": notes}
    if network is not None:
        return recorded(network, path, digest, arguments)
    return assemble(path, digest, layers, others, arguments, preprocessing=preprocessing)


def _check_version(net: Message, path: Path) -> None:
    if net.layers:
        also = f", beside {len(net.layer)} newer ones" if net.layer else ""
        raise CheckpointError(
            f"{path}: has {len(net.layers)} layers of Caffe's V1 format{also}; upgrade it with Caffe's "
            "upgrade_net_proto_binary (upgrade_net_proto_text for a prototxt)"
        )


def _layers(
    net: Message, described: Mapping[str, Sequence[Message]], offsets: Offsets, path: Path, remarks: Remarks
) -> tuple[dict[str, DAUConv2d], dict[str, Tensor]]:
    """DAU layers by name, and the tensors of all others by theirs."""
    layers: dict[str, DAUConv2d] = {}
    others: dict[str, Tensor] = {}
    for message in net.layer:
        where = f"{path}: layer {message.name!r}"
        if not isinstance(message.name, str):  # protobuf's way to hand over what is no text
            raise CheckpointError(f"{where}: its name is not UTF-8; the file is damaged")
        blobs = [_tensor(blob, message.name, where, remarks) for blob in message.blobs]
        if message.type in UNIT_TYPES and blobs:
            if message.name in layers:
                raise CheckpointError(f"{where}: there are two layers of this name")
            settings = settings_of(message.type, [message, *described.get(message.name, ())], where)
            layers[message.name], is_corner = layer_of_blobs(
                blobs, settings, offsets=offsets, name=message.name, where=where, remarks=remarks
            )
            _remark(message.name, settings, offsets, is_corner, remarks)
            continue
        for key, tensor in _plain(message, blobs, where).items():
            if key in others:
                raise CheckpointError(f"{where}: there are two layers of this name")
            others[key] = tensor
    return layers, others


def _remark(name: str, settings: Settings, offsets: Offsets, is_corner: bool, remarks: Remarks) -> None:
    """Remark on what was guessed about a layer."""
    if offsets == "auto" and settings.centred is None:
        place, other = ("corner", "centred") if is_corner else ("centre", "corner")
        how = in_words_of_caller(f'offsets="{other}"', f"--offsets {other}")
        remarks.add(
            f"displacements are taken to count from the window's {place}, judging by their values; the file does "
            f"not say ({how} takes them otherwise)",
            name,
        )
    if settings.kernel_size is None:
        remarks.add("kernel_size is not in the file, so the layer has no limit; pass the prototxt", name)
    elif settings.pad is not None and settings.pad != settings.kernel_size // 2:
        remarks.add(
            f"pad {settings.pad} with kernel_size {settings.kernel_size} changes the map's size in Caffe; here the "
            "output is as large as the input",
            name,
        )


def _described(prototxt: Path | None) -> dict[str, list[Message]]:
    """Layers of the prototxt by name; several may have one name, as the data of training and of testing do."""
    if prototxt is None:
        return {}
    net = read_text_message("NetParameter", prototxt)
    _check_version(net, prototxt)
    layers: dict[str, list[Message]] = {}
    for layer in net.layer:
        layers.setdefault(layer.name, []).append(layer)
    return layers


def _tensor(blob: Message, name: str, where: str, remarks: Remarks) -> Tensor:
    sizes = blob.shape.dim if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    shape = check_sizes(sizes, f"{where}: a blob")
    dtype, chunks = (torch.float64, blob.double_data) if blob.double_data else (torch.float32, blob.data)
    data = bytearray().join(chunks)
    if min(shape, default=1) < 1 or len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(
            f"{where}: a blob of shape {shape} must hold {math.prod(shape)} values of {dtype.itemsize} bytes, "
            f"got {len(data)} bytes"
        )
    values = torch.frombuffer(data, dtype=dtype).reshape(shape)
    return single_precision(values, "a blob", name, where, remarks)


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
    """The first transformation of images that sets a parameter."""
    return next((layer.transform_param for layer in layers if layer.transform_param.ListFields()), None)


def _preprocessing(transform: Message | None, path: Path) -> Preprocessing | None:
    """The preprocessing of the images, if the file says all of it: the mean of each channel and the size."""
    if transform is None or len(transform.mean_value) != 3 or not transform.crop_size or not transform.scale > 0:
        return None
    mean, std, size = tuple(transform.mean_value), 1 / transform.scale, transform.crop_size
    try:
        return Preprocessing(mean, (std,) * 3, "bgr", (size, size), (0.0, 255.0))
    except ValueError as error:
        raise CheckpointError(f"{path}: transform_param cannot be meant: {error}; the file is damaged") from None


def _alexnet(
    path: Path,
    layers: Mapping[str, DAUConv2d],
    others: Mapping[str, Tensor],
    transform: Message | None,
    notes: list[str],
) -> Checkpoint | None:
    """The paper's DAU-AlexNet with these tensors, or None where names or shapes are not its own.

    An assumption about the images is added to ``notes``.
    """
    names = {f"{name}.{key}" for name in _PLAIN_LAYERS for key in ("weight", "bias")}
    if set(layers) != set(_DAU_LAYERS) or set(others) != names or any(la.bias is None for la in layers.values()):
        return None
    crop = int(transform.crop_size) if transform is not None and transform.crop_size else _USUAL_SIZES["input_size"][0]
    if crop > MAX_SIZE:
        return None
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
    told = _preprocessing(transform, path)
    if told is None:
        notes.append(f"the images' mean is not in the file; the usual one {MEAN} (blue first) is recorded")
        told = Preprocessing(MEAN, (1.0, 1.0, 1.0), "bgr", (crop, crop), (0.0, 255.0))
    with torch.device("meta"):
        return from_model(network, preprocessing=told)


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


__all__ = ["MEAN", "Offsets", "is_caffe", "read_caffe"]
