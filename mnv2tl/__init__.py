"""Fine-tune MobileNetV2 on a folder of images with Keras 3, and keep the best checkpoint."""

__version__ = "0.1.0.dev0"

is_command = False
"""Whether this process is a command of ours, see `cli.run`: nobody else uses the Keras in it."""
