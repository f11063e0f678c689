"""What the tests share: fakes, models and the stand-in for AWS."""
