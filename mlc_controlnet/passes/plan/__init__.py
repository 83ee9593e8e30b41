"""Phase plan: memory is planned statically."""
