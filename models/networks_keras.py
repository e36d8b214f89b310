"""The networks written in Keras. All take (N, 28, 28, 1) float32 in [0, 1]: Keras keeps channels last."""

from __future__ import annotations

from typing import Any

from keras import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    Input,
    Model,
    layers,
)

CLASSES = 10
SHAPE = (28, 28, 1)


def _batch_norm() -> Any:
    # Keras' default of 0.99 takes longer to forget the initial statistics than some of these networks train.
    return layers.BatchNormalization(momentum=0.9)


def _conv_bn(x: Any, filters: int, kernel: int = 3, stride: int = 1) -> Any:
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
    return _batch_norm()(x)


def _squeeze_excite(x: Any, squeezed: int) -> Any:
    """Here the gate is computed by Dense layers on (N, C), and reshaped to (N, 1, 1, C)."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(squeezed, activation="relu")(gate)
    gate = layers.Dense(channels, activation="sigmoid")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])


def _inverted_residual(x: Any, filters: int, expansion: int, stride: int) -> Any:
    inputs = x.shape[-1]
    y = layers.ReLU(max_value=6.0)(_conv_bn(x, inputs * expansion, 1))
    if stride == 2:  # as Keras' own MobileNets do: pad by hand on one side, for equal results everywhere
        y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
    padding = "valid" if stride == 2 else "same"
    y = layers.DepthwiseConv2D(3, stride, padding=padding, use_bias=False)(y)
    y = layers.ReLU(max_value=6.0)(_batch_norm()(y))
    y = _conv_bn(_squeeze_excite(y, inputs), filters, 1)
    return layers.Add()([x, y]) if stride == 1 and inputs == filters else y


def depthwise() -> Any:
    """Depthwise convolutions with squeeze-and-excite and residual connections."""
    image = Input(SHAPE, name="image")
    x = layers.ReLU(max_value=6.0)(_conv_bn(image, 16, stride=2))
    x = _inverted_residual(x, 16, 3, 1)
    x = _inverted_residual(x, 24, 4, 2)
    x = _inverted_residual(x, 24, 4, 1)
    x = _inverted_residual(x, 40, 4, 2)
    x = _inverted_residual(x, 40, 4, 1)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(CLASSES, name="logits")(x), name="depthwise")


def vgg() -> Any:
    """Plain convolutions, then Flatten over (3, 3, channels): the channel is the fastest axis here."""
    image = Input(SHAPE, name="image")
    x = image
    for width, count in ((16, 1), (32, 2), (48, 2)):
        for _ in range(count):
            x = layers.ReLU()(_conv_bn(x, width))
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(96, activation="relu")(layers.Flatten()(x))
    x = layers.Dropout(0.3)(x)
    return Model(image, layers.Dense(CLASSES, name="logits")(x), name="vgg")


def _double_conv(x: Any, filters: int) -> Any:
    for _ in range(2):
        x = layers.ReLU()(_conv_bn(x, filters))
    return x


def unet() -> Any:
    """Down three levels and up again by Conv2DTranspose, with concatenated skips."""
    image = Input(SHAPE, name="image")
    skip1 = _double_conv(image, 12)
    skip2 = _double_conv(layers.MaxPooling2D()(skip1), 24)
    x = _double_conv(layers.MaxPooling2D()(skip2), 48)
    x = layers.Conv2DTranspose(24, 2, 2)(x)
    x = _double_conv(layers.Concatenate()([x, skip2]), 24)
    x = layers.Conv2DTranspose(12, 2, 2)(x)
    x = _double_conv(layers.Concatenate()([x, skip1]), 12)
    return Model(image, layers.Conv2D(1, 1, name="logits")(x), name="unet")
