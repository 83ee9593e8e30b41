"""From a captured IRModule to compiled libraries and their figures."""
