"""From a folder of images to its manifest, and from an image to pixels."""
