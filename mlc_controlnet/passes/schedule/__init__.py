"""Phase schedule: tuning records if there are any, rules for the rest."""
