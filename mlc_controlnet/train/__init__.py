"""Train ControlNets with torch and diffusers. This package never imports tvm."""
