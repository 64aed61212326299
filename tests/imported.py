"""Imported layers and Caffe's files for tests, written with numbers and names that no importer provides."""

import struct

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from daukit.models.structure import build

# Field numbers from Caffe's own caffe.proto and the authors' fork: {message: {name: (number, type, repeated)}}.
_SCHEMA = {
    "Net": {"name": (1, "string", 0), "layer": (100, "Layer", 1)},
    "Layer": {
        "name": (1, "string", 0),
        "type": (2, "string", 0),
        "bottom": (3, "string", 1),
        "top": (4, "string", 1),
        "blobs": (7, "Blob", 1),
        "transform_param": (100, "Transform", 0),
        "convolution_param": (106, "Convolution", 0),
        "dau_conv_param": (1106, "Dau", 0),
    },
    "Blob": {
        **{name: (i, "int32", 0) for i, name in enumerate(("num", "channels", "height", "width"), start=1)},
        "data": (5, "float", 1),
        "shape": (7, "Shape", 0),
        "double_data": (8, "double", 1),
    },
    "Shape": {"dim": (1, "int64", 1)},
    "Transform": {"scale": (1, "float", 0), "mirror": (2, "bool", 0), "crop_size": (3, "uint32", 0)}
    | {"mean_file": (4, "string", 0), "mean_value": (5, "float", 1)},
    "Convolution": {
        "num_output": (1, "uint32", 0),
        "bias_term": (2, "bool", 0),
        "pad": (3, "uint32", 1),
        "kernel_size": (4, "uint32", 1),
        "number_gauss": (122, "uint32", 1),
        "gmm_gauss_normalization": (124, "bool", 0),
        "gmm_square_gauss_normalization": (129, "bool", 0),
        "gmm_use_fast_aproximation": (136, "bool", 0),
    },
    "Dau": {
        "num_output": (1, "uint32", 0),
        "bias_term": (2, "bool", 0),
        "number_units": (3, "uint32", 1),
        "pad": (4, "uint32", 1),
        "kernel_size": (5, "uint32", 1),
        "stride": (6, "uint32", 1),
        "unit_normalization": (11, "bool", 0),
        "square_unit_normalization": (12, "bool", 0),
        "component_border_bound": (15, "float", 0),
        "use_already_centered_offsets": (20, "bool", 0),
    },
}
_PACKED = {"data", "double_data", "dim"}


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="caffe_of_tests.proto", package="caffe", syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in _SCHEMA:
                added.type, added.type_name = added.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind.upper()}")
            added.options.packed = field in _PACKED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in _SCHEMA}


Net = _classes()["Net"]


def add_layer(net, name, kind, arrays, **parameters):
    """Add a layer with these blobs; ``parameters`` go to the parameter of its type."""
    layer = net.layer.add(name=name, type=kind, bottom=["below"], top=[name])
    field = {"DAUConvolution": layer.dau_conv_param}.get(kind, layer.convolution_param)
    for key, value in parameters.items():
        field.MergeFrom(type(field)(**{key: value}))
    for array in arrays:
        blob = layer.blobs.add(data=np.asarray(array, np.float32).flatten().tolist())
        blob.shape.dim.extend(np.shape(array))
    return layer


def written(folder, net, name="net.caffemodel"):
    """A net, or any bytes, as a file."""
    path = folder / name
    path.write_bytes(net if isinstance(net, bytes) else net.SerializeToString())
    return path


def one_layer(folder, arrays, kind="DAUConvolution", **parameters):
    """A file of one layer, conv2."""
    net = Net(name="test")
    add_layer(net, "conv2", kind, arrays, **parameters)
    return written(folder, net)


def units(seed=0, inputs=3, count=2, outputs=5, reach=3.0):
    """Weights, mu1 (x) and mu2 (y) as the authors store them, (1, S, K, F), and a bias."""
    random = np.random.default_rng(seed)
    shape = (1, inputs, count, outputs)
    w, mu1, mu2 = (random.uniform(-1, 1, shape).astype(np.float32) * factor for factor in (1, reach, reach))
    return w, mu1, mu2, random.standard_normal(outputs).astype(np.float32)


def full(like, value):
    """A sigma of the same shape."""
    return np.full(like.shape, value, np.float32)


def layer_of(checkpoint, name):
    """The DAU layer that a checkpoint describes."""
    description = next(dict(d) for d in checkpoint.header.layers if d["name"] == name)
    del description["name"]
    layer = build(description)
    state = {k.removeprefix(f"{name}."): t for k, t in checkpoint.tensors.items() if k.rpartition(".")[0] == name}
    layer.load_state_dict(state)
    return layer.eval()


def response(layer):
    """What the layer answers to one bright pixel at (4, 4) of 9 x 9: {(row, column): value} where it is not tiny."""
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    y = layer(x)[0, 0].detach()
    return {(int(r), int(c)): float(y[r, c]) for r, c in (y.abs() > 0.3).nonzero()}


def varint(number):
    """A number as protobuf writes it."""
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])


def chunk(number, data):
    """A length-delimited field as protobuf writes it."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def floats(values):
    """Packed numbers as protobuf writes them."""
    return struct.pack(f"<{len(values)}f", *values)


def crc32c_bit_by_bit(data):
    """The remainder of the Castagnoli polynomial, one bit at a time."""
    crc = 2**32 - 1
    for bit in (byte >> i & 1 for byte in data for i in range(8)):
        crc = crc >> 1 ^ 0x82F63B78 * (crc & 1 ^ bit)
    return crc ^ 2**32 - 1
