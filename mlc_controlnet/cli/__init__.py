"""The command line: one file a command holds its arguments and its call."""
