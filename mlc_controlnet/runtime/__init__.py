"""Native inference: from a bundle to a picture, with numpy, Pillow, tokenizers and TVM's runtime, and without torch."""
