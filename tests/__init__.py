"""Everything that checks Lessor: unit, conformance, end to end, and what they share."""
