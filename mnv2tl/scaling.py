"""How pixels become the numbers that the network reads; it is the first layer of every model."""

from __future__ import annotations

SCALINGS = {
    "symmetric": (1 / 127.5, -1.0),
    "unit": (1 / 255.0, 0.0),
}
"""Name -> (factor, offset) for pixels from 0 to 255.

`symmetric` gives [-1, 1], which the ImageNet weights expect (preprocess_input in
keras/src/applications/mobilenet_v2.py, Keras 3.15.1); `unit` gives [0, 1].
"""
