"""The demo site: built with a bundle beside the page, and served on this machine."""
