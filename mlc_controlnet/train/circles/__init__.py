"""The bundled model `circles`: its data, its shape, its recipe and the measure of its quality."""
