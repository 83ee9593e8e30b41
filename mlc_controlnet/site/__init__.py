"""Build the demo site from the page and a bundle, and serve it on this machine."""
