"""Native inference: draw pictures with a bundle. It needs numpy, Pillow, tokenizers and TVM's runtime, not torch."""
