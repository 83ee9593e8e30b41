"""Search for better schedules than the rules give, and keep what was found as records in `tuning_db/`."""
