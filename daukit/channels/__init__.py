"""Output channels that can go: nothing reads them, or a bias can stand for what they carry. This needs the network."""

from daukit.channels.dropping import LayerChannels, drop_channels

__all__ = ["LayerChannels", "drop_channels"]
