"""What a credential costs: ``make bench``."""
