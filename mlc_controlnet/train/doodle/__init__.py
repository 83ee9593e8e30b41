"""`doodle`, a second bundled model: scribbles become pictures in the manner of emoji."""
