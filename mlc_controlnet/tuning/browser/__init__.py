"""Measures candidates on the GPUs of browsers' tabs: `tune --runner browser`."""
