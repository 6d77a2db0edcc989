"""Programs for people who work on Everloop: installation, checks, reports. Never shipped."""
