"""A layer that is fast where Keras runs TensorFlow on a CPU.

Keras computes BatchNorm as two products and a sum, which TensorFlow leaves as they are. As one
operation it becomes part of the convolution before it. The layer holds the weights of the stock
layer by the same names; it is never saved, see `keras_model.build_model`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

Tensor = Any
"""A tensor of TensorFlow, or Keras' stand-in for one."""


_TYPES = ("float32", "float16", "bfloat16")
"""What the operation takes."""


class FusedBatchNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' BatchNormalization of four axes; what trains is computed as Keras does."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Any:
        """Return the normalised inputs, shape (n, height, width, channels)."""
        # Its gradient makes sums that a frozen layer does not need.
        if training or self.compute_dtype not in _TYPES:
            return super().call(inputs, training=training, mask=mask)
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=self.moving_mean.value,
            variance=self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=False,
        ).y
